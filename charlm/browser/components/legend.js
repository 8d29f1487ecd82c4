/* What the colours of a text stand for: a bar between the meanings of the weakest and the strongest one. */

import { MOST_DIFFERENCE, MOST_NATS } from "./heat.js";
import { make } from "./text.js";

const ENDS = {
  surprisal: ["0, expected", `${MOST_NATS} nats, surprising`],
  difference: [`${MOST_DIFFERENCE} nats less surprising to A`, "to B"],
  gate: ["0", "1"],
  activation: ["below 0", "above 0"],
};

/** Show in an element the legend of a kind of Heat. side: a or b, whose unit the colours are of, "" if they are of none. */
export function showLegend(element, kind, side = "") {
  const [low, high] = ENDS[kind];
  element.className = `legend ${kind}`;
  element.dataset.side = side;
  element.replaceChildren(make("span", "", low), make("span", "legend-bar"), make("span", "", high));
}
