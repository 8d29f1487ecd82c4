/* What a visitor can begin with: prompts that two models know, and a text to look into that fits a model.

   The Gradio page chooses the same, in charlm/web/answers/examples.py. Models are entries of models.js. */

const PROMPTS = ["ROMEO:\n", "To be, or not to be", "Apple", "University", "Seoul", "Coffee", "Computer"];
const PLAYS = ["", "tinyshakespeare"]; // the text that the scene and the prompts are made for, or an unknown one
const MOST_UNKNOWN = 0.02; // share of the scene's characters that a model may lack, or it begins with another text
const [FIRST_WORDS, FIRST_SYMBOLS] = [3, 3]; // of a line that has more words than that; of any other line
const SENTENCE_END = /[.!?。．！？]["'”’]*/;

/** Return prompts for a model, of symbols that it knows: PROMPTS for a model of plays, else how its own lines begin. */
export function promptsOf(model) {
  const { text, sample } = recordOf(model);
  const own = beginnings(sample);
  const choices = PLAYS.includes(text) ? [PROMPTS, own] : [own, PROMPTS];
  return choices.map((prompts) => knownTo(model, prompts)).find((prompts) => prompts.length) ?? [];
}

/** Return the prompts of one model that the other knows, or if there are none, those of the other that it knows.

    If there are none either, they are those of the first one: the other skips what it does not know. */
export function sharedPrompts(one, other) {
  const own = promptsOf(one);
  return [knownTo(other, own), knownTo(one, promptsOf(other))].find((prompts) => prompts.length) ?? own;
}

/** Return the prompt after other models were chosen: one of theirs in place of one that the page had offered.

    offered: the prompts of the models before. prompts: of those that are chosen now. What a visitor typed stays. */
export function nextPrompt(prompt, offered, prompts) {
  if (!(offered.length ? offered : [""]).includes(prompt) || prompts.includes(prompt)) return prompt;
  return prompts[0] ?? "";
}

/** Return a text for a model to look into: the scene for a model of plays, for others what they wrote themselves.

    If its record has no sample it is the scene, too, or "" if the model cannot read that. */
export function textToRead(model, scene) {
  const { text, sample } = recordOf(model);
  const symbols = Array.from(scene);
  const isKnown = symbols.length - knownTo(model, symbols).length <= MOST_UNKNOWN * symbols.length;
  return isKnown && (PLAYS.includes(text) || !sample) ? scene : sample;
}

function knownTo({ config }, texts) {
  const vocab = new Set(config.vocab);
  return texts.filter((text) => Array.from(text).every((symbol) => vocab.has(symbol)));
}

/** Return the name of the text that a model was trained on, and the sample of its best epoch; "" if unknown. */
function recordOf({ history }) {
  const best = history?.epochs.find(({ epoch }) => epoch === history.best.epoch);
  return { text: history?.run.text ?? "", sample: best?.sample ?? "" };
}

/** Return the first words of the lines of a sample, or the first letters where a line has few words.

    Where no line is whole, since they are as long as paragraphs, they are those of its sentences. */
function beginnings(sample) {
  const startsBetween = (end) => startsOf(sample.split(end).slice(0, -1)); // the last part was cut
  const lines = startsBetween("\n");
  return lines.length ? lines : startsBetween(SENTENCE_END);
}

/** Return how the lines or sentences of a text begin, each once. */
function startsOf(parts) {
  const starts = parts.flatMap((part) => {
    const words = part.split(" ").filter(Boolean);
    const whole = words.join(" ");
    const letters = Array.from(whole).slice(0, FIRST_SYMBOLS).join("");
    const start = words.length > FIRST_WORDS ? words.slice(0, FIRST_WORDS).join(" ") : letters;
    return start.length < whole.length ? [start] : [];
  });
  return [...new Set(starts)].slice(0, PROMPTS.length);
}
