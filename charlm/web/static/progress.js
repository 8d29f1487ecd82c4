/* How something that takes minutes is doing: its state, a line about it, and how much of it is done. */

import { make, readable } from "../../browser/components/text.js";
import { RESULTS_LOST } from "./events.js";

const GOES_ON = '.state:is([data-state="waiting"], [data-state="running"], [data-state="paused"])';

/** A line about a state, in an element that holds a `div` of the class `state`.

    props.value: {state, message, share}. The state stands in data-state, for the style; share is 0 to 1, or null where
    it is not known. A screen reader is told the message when the state changes, not every half second. lost: the
    message if no further values can come. */
export class Progress {
  constructor(element, props, lost) {
    this.props = props;
    this.frame = element.querySelector(".state");
    this.message = make("div", "state-message");
    this.bar = make("progress");
    this.bar.setAttribute("aria-label", "done");
    this.told = make("div", "state-told");
    this.told.setAttribute("role", "status");
    this.frame.replaceChildren(this.message, this.bar, this.told);
    this.update();
    addEventListener(RESULTS_LOST, () => {
      if (this.frame.matches(GOES_ON)) this.props.value = { state: "failed", message: lost, share: null };
      this.update();
    });
  }

  update() {
    const { state = "empty", message = "", share = null } = this.props.value ?? {};
    this.message.textContent = readable(message);
    this.bar.hidden = share === null;
    this.bar.value = share ?? 0;
    if (this.frame.dataset.state !== state) this.told.textContent = readable(message);
    this.frame.dataset.state = state;
  }
}
