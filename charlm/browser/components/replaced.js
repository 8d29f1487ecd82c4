/* A visitor's text that the page has replaced by another one, so that it can be put back. */

/** text: the visitor's text that was replaced, undefined if there is none. written: the text that a model wrote last. */
export class ReplacedText {
  /** Keep what a field holds if the visitor has typed it. offered: the texts that the page itself has put there. */
  keep(field, offered) {
    if (field?.trim() && ![...offered, this.written].includes(field)) this.text = field;
  }

  /** Keep what a field holds before a text that a model wrote comes there. */
  write(written, field, offered) {
    this.keep(field, offered);
    this.written = written;
  }

  /** Return the visitor's text, to be put back. What has been typed since then is kept in its turn. */
  restore(field, offered) {
    const { text } = this;
    this.text = undefined;
    this.keep(field, offered);
    return text;
  }
}
