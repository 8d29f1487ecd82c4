/* Two texts of the same characters, side by side: what is pointed at, held or scrolled to in one is so in the other. */

import { HeatText } from "./heat.js";

/** The HeatTexts of two models that have read the same characters.

    elements: of the texts. props: of each. onPlace: called with the place of a character that is now explained.
    onHold: called when a character is held, or let go.

    place: of the character that is explained, undefined before the first. isHeld: whether it is held, so that pointing
    at another one changes nothing until it is let go. isTelling: whether the texts are being told, and would tell. */
export class TextPair {
  constructor(elements, props, { onPlace, onHold }) {
    Object.assign(this, { onPlace, onHold, place: undefined, isHeld: false, isTelling: false });
    this.texts = elements.map((element, number) => {
      const follow = () => this.follow(this.texts[number]);
      // a character that is let go of is not pointed at, one that is held is
      const select = () => this.texts[number].isHeld || follow();
      return new HeatText(element, props[number], select, { onPoint: follow, onChoose: () => {}, onRelease: follow });
    });
    const [a, b] = this.texts.map(({ text }) => text);
    a.addEventListener("scroll", () => scrollAlike(a, b));
    b.addEventListener("scroll", () => scrollAlike(b, a));
  }

  /** The place that is held, undefined if none is. */
  get held() {
    return this.isHeld ? this.place : undefined;
  }

  /** Show in the other text what the visitor does in one. */
  follow(text) {
    if (!this.isTelling) this.goTo(text.cursor, text.isHeld, text);
  }

  /** Explain a character in both texts, and scroll to it. source: a text in which that has been done. */
  goTo(place, isHeld = this.isHeld, source = null) {
    this.explain(place, isHeld, source);
    for (const text of this.texts) if (text !== source && place < text.shown) text.reveal(place);
  }

  /** Explain a character in both texts. Where the visitor has scrolled to stays. */
  explain(place, isHeld = this.isHeld, source = null) {
    const isHold = isHeld || this.isHeld;
    Object.assign(this, { place, isHeld, isTelling: true });
    for (const text of this.texts) {
      if (text === source || place >= text.shown) continue;
      text.isHeld = isHeld;
      text.point(place);
    }
    this.isTelling = false;
    this.onPlace(place);
    if (isHold) this.onHold();
  }
}

/** Scroll a text to where another one was scrolled, so that lines of the same place stand side by side. */
function scrollAlike(text, other) {
  const isAtEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 1;
  if (isAtEnd && other.scrollTop > text.scrollTop) return; // the other one was made lower, and has farther to go
  other.scrollTop = text.scrollTop;
}
