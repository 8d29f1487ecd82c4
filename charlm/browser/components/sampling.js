/* How a symbol is drawn from logits: the rules of charlm/inference/sampling.py (docs/arithmetic.md, "Drawing"), for
   components that show each step.

   The details of a drawn character are {place, symbol, symbols, logits, forced, random}: V symbols in the order of
   their ids with their logits, whether the visitor chose the symbol, and the random number u of the draw. Of a large
   vocabulary they may hold only the symbols with the highest logits: then `rest` is the logarithm of the sum of exp
   over the logits of the others, and `others` is how many these are. */

const SMALLEST_TEMPERATURE = 1e-250; // as LOWEST_TEMPERATURE of the engines
const LARGEST_SCALED = 400; // logits whose highest is beyond are shifted so that it is 0
const BELOW_ONE_64 = 1 - 2 ** -52; // a random number times this, times a sum, is below the sum even when rounded

/** Return each step of a draw for logits (V,) with the settings {temperature, top_k, top_p}.

    scaled: the logits divided by the temperature, (V,); the logits themselves at temperature 0, which takes the
      likeliest symbol, of equals the first.
    shares: the probabilities before top-k and top-p, (V,). kept: whether a symbol is left by them, (V,).
    probabilities: of the symbols that are left, (V,); 0 of the others.
    cumulative: the sum of the probabilities up to and with each symbol, in the order of ids, (V,).
    ranked: the places of the symbols, the likeliest first, of equals the first.
    rest: the probability of symbols that the details do not list. It is exact at temperature 1; at others these symbols
      count as equally likely. */
export function stepsOfDraw({ logits, rest = -Infinity, others = 1 }, { temperature, top_k, top_p }) {
  const scale = temperature === 0 ? 1 : 1 / Math.max(temperature, SMALLEST_TEMPERATURE);
  const scaled = Array.from(logits, (logit) => logit * scale);
  let top = scaled.reduce((one, other) => Math.max(one, other), -Infinity);
  if (-LARGEST_SCALED < top && top < LARGEST_SCALED) top = 0;
  const weights = scaled.map((each) => Math.exp(each - top));
  const unlisted = others * Math.exp((rest - Math.log(others)) * scale - top);
  const before = weights.reduce((sum, weight) => sum + weight, 0) + unlisted;
  const ranked = [...weights.keys()].sort((one, other) => weights[other] - weights[one] || one - other);
  const { kept, isRestKept } =
    temperature === 0
      ? { kept: new Set([firstOfLargest(logits)]), isRestKept: false }
      : keepSymbols(weights, unlisted, ranked, top_k, top_p);
  const left = weights.map((weight, place) => (kept.has(place) ? weight : 0));
  let total = 0;
  const sums = left.map((weight) => (total += weight)); // in the order of ids, as the engines add
  if (isRestKept) total += unlisted;
  return {
    scaled,
    shares: weights.map((weight) => weight / before),
    kept: left.map((_, place) => kept.has(place)),
    probabilities: left.map((weight) => weight / total),
    cumulative: sums.map((sum) => sum / total),
    ranked,
    rest: isRestKept ? unlisted / total : 0,
    sums,
    total,
  };
}

/** Return the place of the symbol that a random number draws; -1 if symbols that are not listed might be drawn. */
export function drawnPlace({ sums, total, rest, kept }, random) {
  if (rest > 0) return -1;
  const target = random * BELOW_ONE_64 * total;
  const place = sums.findIndex((sum) => sum > target);
  return place < 0 ? kept.lastIndexOf(true) : place;
}

/** Return the surprisal of the symbol at a place in nats: of the model's own distribution, without the settings. */
export function surprisalAt({ logits, rest = -Infinity }, place) {
  const top = logits.reduce((one, other) => Math.max(one, other), rest);
  const sum = logits.reduce((so_far, logit) => so_far + Math.exp(logit - top), Math.exp(rest - top));
  return Math.log(sum) - (logits[place] - top);
}

function firstOfLargest(numbers) {
  return numbers.reduce((best, number, place) => (number > numbers[best] ? place : best), 0);
}

/** Return which symbols top-k and top-p leave, and whether they leave those that are not listed. */
function keepSymbols(weights, unlisted, ranked, top_k, top_p) {
  const isCut = top_k > 0 && (top_k < ranked.length || (top_k === ranked.length && unlisted > 0));
  const most = isCut ? ranked.slice(0, top_k) : ranked;
  const isRestIn = !isCut && unlisted > 0;
  if (top_p >= 1) return { kept: new Set(most), isRestKept: isRestIn };
  let total = 0;
  for (const place of [...most].sort((one, other) => one - other)) total += weights[place];
  if (isRestIn) total += unlisted;
  const kept = new Set();
  let sum = 0;
  for (const place of most) {
    kept.add(place);
    sum += weights[place];
    if (sum >= top_p * total) return { kept, isRestKept: false }; // the symbol that reaches it stays
  }
  return { kept, isRestKept: isRestIn };
}
