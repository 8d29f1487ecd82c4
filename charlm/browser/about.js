/* The view *About*: the cards of the models in short, with their licences. */

import { byId, make, makeLine, readable } from "./components/text.js";
import { hasHub, models, whenAdded } from "./models.js";

/** Open the view. */
export function openAbout() {
  byId("about-network").textContent = hasHub()
    ? "The models come from the Hugging Face Hub, at commits fixed when the page was made; this browser keeps them."
    : "This file holds everything that it needs, and works without a network.";
  showCards();
  whenAdded(showCards);
}

function showCards() {
  const cards = models.map(({ name, card, size }) => {
    const element = make("section", "card");
    element.append(make("h3", "", readable(name)), ...card.map(makeLine));
    element.append(make("p", "hint", `${(size / 1e6).toFixed(1)} MB of weights`));
    return element;
  });
  byId("about-models").replaceChildren(...cards);
}
