/* The link to the texts that are shown, and the code that shows them in another page. */

import { linkTo } from "./address.js";
import { publicLink } from "./components/state.js";
import { byId } from "./components/text.js";

/** Show a link to the text with these settings, and copy it where the browser allows it. */
export function showLink(settings) {
  byId("shared").hidden = false;
  const link = (byId("link").value = publicLink(linkTo(settings)));
  const source = linkTo(settings, { embed: "write" }).href.replaceAll("&", "&amp;").replaceAll('"', "&quot;");
  byId("embed-code").value = `<iframe src="${source}" width="100%" height="640" title="charlm"></iframe>`;
  byId("share-hint").textContent = link.startsWith("file:")
    ? "The link opens this file where it lies. Put the file on a web server, and others can open the link, too."
    : "Who opens it sees the same texts: they are written again, by the same models with the same seed.";
  navigator.clipboard?.writeText(link).catch(() => {});
  byId("link").select();
}
