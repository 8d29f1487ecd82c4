/* The page's part in the browser: texts with a background colour for each character, files that are read and made
   here, the address of each view. Values are put on the page as text, never as markup.

   window.charlmShades: the numbers of charlm/web/heat.py that encode the shades, written by components.py. */

window.charlm = (({ LOWEST, HIGHEST, MOST_NATS }) => {
  const MOST_MARKS = 3; // combining marks on one letter; more would cover the lines above
  const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Cs}]/u;
  const DESCRIPTIONS = {
    surprisal: (shade) => `surprisal ${(shade * MOST_NATS).toFixed(1)} nats`,
    activation: (shade) => `activation ${(2 * shade - 1).toFixed(2)} of the strongest`,
    influence: (shade) => `influence ${(100 * shade).toFixed(0)} % of the strongest`,
  };
  const FIELD_NAMES = { model_a: "model A", model_b: "model B", top_k: "top-k", top_p: "top-p" }; // others: as they are
  let isOpen = false; // whether the page shows what its address says
  let pace = 0; // characters that appear per second in a paced text; 0 shows the text as it comes

  /** Return a character, or its number if it would be invisible, reorder the text, or pile up.

      `printable` in charlm/text.py does the same for messages and names; it also escapes line breaks and tabs, which a
      text keeps. */
  function visible(symbol, marksBefore) {
    if (symbol === "\n" || symbol === "\t") return symbol;
    const isPiled = /\p{M}/u.test(symbol) && marksBefore >= MOST_MARKS;
    if (!HIDDEN.test(symbol) && !isPiled) return symbol;
    return `\\u{${symbol.codePointAt(0).toString(16)}}`;
  }

  /** Return a text with every character made visible. */
  function readable(text) {
    let marks = 0;
    return Array.from(String(text), (symbol) => {
      const shown = visible(symbol, marks);
      marks = /\p{M}/u.test(symbol) ? marks + 1 : 0;
      return shown;
    }).join("");
  }

  /** Return a character as it is called in a description. */
  function named(symbol) {
    return { "\n": "line break", "\t": "tab", " ": "space" }[symbol] ?? `“${visible(symbol, MOST_MARKS)}”`;
  }

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  /** A text whose characters have shades. Its value is a Heat of charlm/web/heat.py.

      text, detail: the elements of the text and of the explanation below it.
      symbols: the characters of the value. shown: how many of them are on the page.
      cursor: the place of the character that is explained, -1 if there is none.
      whole, shades, prompt, kind: of the value that was last shown.
      marks: the combining marks at the end of what is shown. due: the time of the last paced step. */
  class HeatText {
    constructor(element, props, trigger) {
      Object.assign(this, { element, props, trigger, shown: 0, symbols: [], cursor: -1, marks: 0, due: 0 });
      this.text = element.querySelector(".heat-text");
      this.detail = element.querySelector(".heat-detail");
      this.text.addEventListener("mouseover", (event) => this.point(event.target.place));
      this.text.addEventListener("click", (event) => this.choose(event.target.place));
      this.text.addEventListener("keydown", (event) => this.type(event));
      element.querySelector(".heat-copy")?.addEventListener("click", (event) => this.copy(event.target));
      element.querySelector(".heat-save")?.addEventListener("click", () => save(this.value.text, `${this.value.name}.txt`));
      element.heatText = this;
      this.update();
    }

    get value() {
      return { prompt: "", text: "", shades: "", kind: "surprisal", name: "text", ...(this.props.value || {}) };
    }

    get pace() {
      return this.props.paced ? pace : 0;
    }

    /** Show the value: append if it continues what is shown, else start anew. */
    update() {
      const { prompt, text, shades, kind, details } = this.value;
      const isSameKind = kind === this.kind && prompt === this.prompt && !details;
      if (!(isSameKind && text.startsWith(this.whole) && shades.startsWith(this.shades))) this.clear();
      Object.assign(this, { whole: text, shades, kind, prompt });
      this.symbols = Array.from(text);
      this.text.dataset.prompt = readable(prompt);
      this.text.dataset.kind = kind;
      if (this.pace) this.reveal();
      else this.show(this.symbols.length);
    }

    clear() {
      this.text.replaceChildren();
      Object.assign(this, { shown: 0, marks: 0, cursor: -1, due: 0 });
      if (this.detail) this.detail.replaceChildren();
    }

    /** Append characters at the chosen pace until all are shown. */
    reveal() {
      if (this.timer) return;
      this.due = performance.now();
      const tick = (now) => {
        if (this.shown >= this.symbols.length || !this.pace) {
          this.timer = null;
          if (!this.pace) this.show(this.symbols.length);
          return;
        }
        const steps = Math.floor(((now - this.due) / 1000) * this.pace);
        if (steps > 0) {
          this.due += (steps * 1000) / this.pace;
          this.show(Math.min(this.shown + steps, this.symbols.length));
        }
        this.timer = requestAnimationFrame(tick);
      };
      this.timer = requestAnimationFrame(tick);
    }

    /** Drop what is not shown yet, so that the text continues from what the visitor sees. */
    stop() {
      if (this.timer) cancelAnimationFrame(this.timer);
      this.timer = null;
      this.symbols = this.symbols.slice(0, this.shown);
      this.whole = this.symbols.join("");
      this.shades = this.value.shades.slice(0, this.shown);
      if (this.whole !== this.value.text) this.props.value = { ...this.value, text: this.whole, shades: this.shades };
    }

    /** Append the characters up to a place. */
    show(end) {
      const { shades } = this.value;
      const isAtEnd = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 30;
      const added = document.createDocumentFragment();
      for (let place = this.shown; place < end; place++) {
        const symbol = this.symbols[place];
        const isMark = /\p{M}/u.test(symbol);
        const span = make("span", symbol === "\n" ? "newline" : "", visible(symbol, this.marks));
        this.marks = isMark ? this.marks + 1 : 0;
        if (span.textContent !== symbol) span.className = "escape";
        span.place = place;
        const shade = this.shade(shades, place);
        if (shade !== null) this.paint(span, shade);
        added.append(span);
      }
      this.text.append(added);
      this.shown = Math.max(this.shown, end);
      if (isAtEnd && !this.value.details) this.text.scrollTop = this.text.scrollHeight;
    }

    /** Return the shade of a place, null if it has none. */
    shade(shades, place) {
      const code = shades.charCodeAt(place);
      return code >= LOWEST && code <= HIGHEST ? (code - LOWEST) / (HIGHEST - LOWEST) : null;
    }

    /** Colour a character. Activations below 0, whose shades are below 0.5, have their own colour. */
    paint(span, shade) {
      if (this.kind !== "activation") return span.style.setProperty("--shade", shade.toFixed(3));
      span.style.setProperty("--shade", Math.abs(2 * shade - 1).toFixed(3));
      span.classList.toggle("negative", shade < 0.5);
    }

    /** Describe the character at a place. */
    point(place) {
      if (place === undefined || place >= this.shown) return;
      const shade = this.shade(this.value.shades, place);
      const words = shade === null ? "" : `: ${DESCRIPTIONS[this.kind](shade)}`;
      this.text.children[place].title = named(this.symbols[place]) + words;
      if (!this.detail) return;
      this.text.children[this.cursor]?.classList.remove("cursor");
      this.text.children[place].classList.add("cursor");
      this.cursor = place;
      this.explain(place, words);
    }

    /** List below the text which characters the model held likeliest at a place. */
    explain(place, words) {
      const rows = (this.value.details?.[place] ?? []).map(([symbol, probability]) => {
        const row = make("div", "bar-row" + (symbol === this.symbols[place] ? " true" : ""));
        const bar = make("span", "bar");
        bar.style.width = `${(100 * probability).toFixed(1)}%`;
        const track = make("span", "bar-track");
        track.append(bar);
        const label = make("span", "bar-symbol", { "\n": "↵", " ": "␣" }[symbol] ?? visible(symbol, MOST_MARKS));
        row.append(label, track, make("span", "bar-figure", `${(100 * probability).toFixed(1)} %`));
        return row;
      });
      this.detail.replaceChildren(make("div", "detail-line", named(this.symbols[place]) + words), ...rows);
    }

    /** Send the place of a chosen character to the server. */
    choose(place) {
      if (place === undefined) return;
      this.point(place);
      this.trigger("select", { index: place });
    }

    /** Move the cursor with the keyboard. */
    type(event) {
      if (!this.detail) return;
      const step = { ArrowRight: 1, ArrowLeft: -1, Home: -this.shown, End: this.shown }[event.key];
      if (step !== undefined) this.point(Math.min(Math.max(this.cursor + step, 0), this.shown - 1));
      else if (event.key === "Enter" && this.cursor >= 0) this.choose(this.cursor);
      else return;
      event.preventDefault();
      this.text.children[this.cursor]?.scrollIntoView({ block: "nearest" });
    }

    async copy(button) {
      const message = (await toClipboard(this.value.text)) ? "Copied" : "Select and copy by hand";
      const before = button.textContent;
      button.textContent = message;
      setTimeout(() => (button.textContent = before), 1500);
    }
  }

  /** Return whether the text is on the clipboard: browsers refuse it to pages without https. */
  async function toClipboard(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return false;
    }
  }

  /** Download a text as a file. */
  function save(text, name, type = "text/plain") {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
    link.download = name.replace(/[^\p{L}\p{N}._-]+/gu, "-");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  /** Return a component that shows a value, or each value of a list, as an element. */
  function listOf(makeElement) {
    return (element, props, watch) => {
      const update = () => {
        const values = [props.value || []].flat();
        element.firstElementChild.replaceChildren(...values.map(makeElement));
      };
      watch("value", update);
      update();
    };
  }

  function makeLine(line) {
    return make("div", "line", readable(line));
  }

  function makeCard({ title, about, text }) {
    const card = make("section", "card");
    const body = make("pre", "card-text", readable(text));
    body.tabIndex = 0; // it scrolls, so the keyboard has to reach it
    body.setAttribute("aria-label", title);
    card.append(make("h4", "", readable(title)), make("div", "hint", readable(about)), body);
    return card;
  }

  /** A field for a text file, which is read here and becomes the value {name, text}. */
  function textFile(element, props, trigger, mostBytes) {
    const input = element.querySelector("input");
    const line = element.querySelector(".file-line");
    input.addEventListener("change", async () => {
      const file = input.files[0];
      if (!file) return;
      if (file.size > mostBytes) {
        line.textContent = `${file.name} has ${(file.size / 1e6).toFixed(1)} MB; the limit is ${mostBytes / 1e6} MB.`;
        return;
      }
      try {
        const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
        line.textContent = `${file.name}: ${Array.from(text).length.toLocaleString("en")} characters`;
        props.value = { name: file.name, text };
        trigger("change");
      } catch {
        line.textContent = `${file.name} is not UTF-8 text; save it as UTF-8 first.`;
      }
    });
  }

  /** Return the HeatTexts on the page, or those within a selector. */
  function heatTexts(selector = "") {
    const texts = [...document.querySelectorAll(`${selector} .heat`)];
    return texts.map((text) => text.parentElement.heatText).filter(Boolean);
  }

  function stopAll() {
    heatTexts().forEach((text) => text.stop());
  }

  /** Stop a text where the visitor sees it end, and return its value. */
  function stopped(id) {
    const [text] = heatTexts(`#${id}`);
    text.stop();
    return text.value;
  }

  /** Return the value that a text shows. */
  function shown(id) {
    return heatTexts(`#${id}`)[0].value;
  }

  /** Say which fields hold another value now than the one that an answer was given for; "" if none does.

      asked: the values then, by field, undefined without an answer. now: the values now. remedy: what to do about it. */
  function changes(asked, now, remedy) {
    const isChanged = (name) => name in asked && JSON.stringify(asked[name]) !== JSON.stringify(now[name]);
    const names = asked ? Object.keys(now).filter(isChanged) : [];
    return names.length ? `Changed since: ${names.map((name) => FIELD_NAMES[name] ?? name).join(", ")}. ${remedy}` : "";
  }

  function setPace(charactersPerSecond) {
    pace = charactersPerSecond;
    heatTexts().forEach((text) => text.update());
  }

  /** Return the address that opens the page with these settings, and copy it if the browser allows. */
  async function link(settings) {
    const address = new URL(location.pathname, location.origin);
    for (const [name, value] of Object.entries(settings)) address.searchParams.set(name, value);
    await toClipboard(address.href);
    return address.href;
  }

  /** Put the chosen view into the address, so that the address can be passed on. */
  function setView(view) {
    if (!isOpen) return; // Gradio also selects a tab while it builds the page
    inspectAtFirst(view);
    const address = new URL(location.href);
    if ((address.searchParams.get("view") ?? "write") === view) return;
    address.search = `?view=${view}`;
    history.replaceState(null, "", address);
  }

  /** Inspect the text when *Look inside* is first opened, so that the view is not empty. */
  function inspectAtFirst(view) {
    const isEmpty = heatTexts("#seen").some((text) => !text.value.text);
    if (view === "inside" && isEmpty) document.querySelector("#inspect").click();
  }

  /** Called once the page shows what its address says. A share link whose seed was accepted is written at once. */
  function opened() {
    isOpen = true;
    const query = new URLSearchParams(location.search);
    inspectAtFirst(query.get("view"));
    const filled = document.querySelector("#seed textarea, #seed input")?.value;
    if (query.has("seed") && filled === query.get("seed")) document.querySelector("#generate")?.click();
  }

  return {
    heatText: (element, props, trigger, watch) => {
      const heatText = new HeatText(element, props, trigger);
      watch("value", () => heatText.update());
    },
    lines: listOf(makeLine),
    cards: listOf(makeCard),
    isOpen: () => isOpen,
    textFile, stopAll, stopped, shown, changes, setPace, setView, opened, save, link,
  };
})(window.charlmShades);
