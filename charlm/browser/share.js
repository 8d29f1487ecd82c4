/* The link to the texts that are shown, and the code that shows them in another page. */

import { parametersOf } from "./address.js";
import { shareView } from "./components/state.js";
import { byId } from "./components/text.js";

const TOO_LONG = "The prompt is too long for a link: this one opens the page without your texts.";

/** Show a link to the text with these settings, and copy it where the browser allows it. */
export async function showLink(settings) {
  const { link, code, tooLong } = await shareView("write", parametersOf(settings));
  byId("shared").hidden = false;
  byId("link").value = link;
  byId("embed-code").value = code;
  const hint = link.startsWith("file:")
    ? "The link works only on this computer. Put the file on a web server, and others can open it as well."
    : "Anyone who opens it sees the same texts: they are written again, by the same models with the same seed.";
  byId("share-hint").textContent = tooLong ? TOO_LONG : hint;
  navigator.clipboard?.writeText(link).catch(() => {});
  byId("link").select();
  byId("shared").scrollIntoView({ block: "nearest" }); // on a phone the button is far from it
}
