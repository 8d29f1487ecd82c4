/* Starts an exported page, whose script stands in it as base64 of gzip: unpacked it would take three times the room. */

async function start() {
  const packed = Uint8Array.from(atob(document.getElementById("script").textContent), (symbol) => symbol.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = new Blob([await new Response(stream).text()], { type: "text/javascript" });
  await import(URL.createObjectURL(script));
}

start().catch((error) => {
  const line = document.createElement("div");
  line.className = "line";
  const what = `This page cannot start in this browser (${error.message})`;
  line.textContent = `${what}; a current Chrome, Edge, Firefox or Safari runs it.`;
  document.getElementById("notices").append(line);
});
