/* What a model wrote after each epoch of its training: a slider chooses the epoch, whose sample stands below it. */

import { make, readable } from "../../browser/components/text.js";

/** A slider over samples, in an element that holds a `div` of the class `samples`.

    props.value: a list of {epoch, loss, text}, to which a training appends. After a change, `update` shows it; the
    chosen epoch stays. */
export class Samples {
  constructor(element, props) {
    this.props = props;
    this.frame = element.querySelector(".samples");
    const head = make("label", "samples-head");
    this.line = make("span", "samples-line");
    this.slider = make("input");
    Object.assign(this.slider, { type: "range", min: 0, max: 0, step: 1, value: 0 });
    this.text = make("pre", "samples-text");
    this.text.tabIndex = 0; // it scrolls, so the keyboard has to reach it
    head.append(this.line, this.slider);
    this.frame.replaceChildren(head, this.text);
    this.slider.addEventListener("input", () => this.show());
    this.update();
  }

  update() {
    this.samples = this.props.value ?? [];
    this.slider.max = Math.max(this.samples.length - 1, 0); // a larger value of the slider goes down with it
    this.show();
  }

  show() {
    const sample = this.samples[this.slider.value];
    this.frame.hidden = !sample;
    if (!sample) return;
    const name = `after epoch ${sample.epoch}`;
    this.line.textContent = `${name}: validation loss ${sample.loss.toFixed(4)}`;
    this.slider.setAttribute("aria-valuetext", name);
    this.text.setAttribute("aria-label", `Sample ${name}`);
    const text = readable(sample.text);
    if (this.text.textContent !== text) this.text.textContent = text; // else a selection would be lost
  }
}
