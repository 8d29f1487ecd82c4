/* The arithmetic of the engine: the same bits on every processor, for one text or for many.

A sum of floating-point numbers depends on its order. Here every sum is made in the order of its terms, one after
another, without fused multiply-add: acc = bias, then acc = acc + w[k] * x[k] for k = 0, 1, ... The lanes of a vector
hold different outputs, never different terms of one output, so it does not matter how wide the vectors are, how many
texts are read side by side, or on how many threads (multiply_back, for gradients, has a partial sum for each lane of a
panel, which does not depend on that either). exp and tanh are written out below for the same reason: those of
the C library differ between systems. Only surprisals take its log, so their last bit may differ. docs/arithmetic.md
states the order for other implementations, such as the one in WebAssembly.

This file includes itself once for each instruction set, with LANES defined, the floats in a vector register. The
functions that Python calls end in that number: read_8, logits_8, write_8 for AVX2. With ONE_PROCESSOR defined, only
those are compiled that suit the compiler's flags (-march=native): it takes less than half the time.

Letters for shapes: S texts, T steps, R rows, V symbols, E the width of the embedding, U units of a layer, G gates. E, U
and V are padded with zeros to whole panels.

Matrices are stored in panels of PANEL outputs: (panels, terms, PANEL), so that a product reads memory from front to
back. In bfloat16 the terms k and k + 1 of an output share a word of 32 bits, the lower half first: both are widened in
place, without moving numbers between lanes. */

#ifndef LANES

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PANEL 16       /* outputs */
#define WIDE 4         /* panels that are read side by side for a single row */
#define TALLEST 16     /* rows of a tile with the widest vectors */
#define PASS_TEXTS 64  /* texts that go through the layers together */
#define PASS_ROWS 128  /* rows that go through a layer together, if the texts are fewer */
#define BACK_TERMS 128 /* outputs whose partial sums are in the cache while a row is multiplied by U */
#define PANELS_AHEAD 2 /* from the panel that is multiplied by several rows to that which is read from memory */
#define HEAD_ROWS 16   /* rows whose logits are kept at a time when symbols are drawn or scored */

enum cell { RNN, LSTM, GRU };

/* A layer computes from x, the row below it, and h, its hidden state:
   before = bias + W x, for each gate; then the gates of before + U h. */
typedef struct {
  const float *table;       /* of the first layer: before for each symbol, (V, G*U); or null */
  const float *embedding;   /* of the first layer without a table: x for each symbol, (V, terms) */
  int64_t terms;            /* numbers in x */
  const void *inputs;       /* W, (G*U / PANEL, terms, PANEL) */
  const void *recurrent;    /* U, (G*U / PANEL, units, PANEL) */
  const float *bias;        /* (G*U) */
  const float *hidden_bias; /* of the GRU: what is added to U h in the gate n, (U) */
} Layer;

typedef struct {
  int32_t cell, is_bfloat16; /* whether all matrices are bfloat16, else float32 */
  int64_t layers, units, symbols, padded_symbols;
  const Layer *layer;
  const void *head;       /* (V / PANEL, units, PANEL) */
  const float *head_bias; /* (V) */
} Model;

/* How each of S texts is drawn, and what is drawn in N steps. */
typedef struct {
  const double *scale;   /* 1 / temperature, (S); 0 takes the likeliest symbol */
  const int64_t *top_k;  /* (S); at least V means all */
  const double *top_p;   /* (S); 1 means all */
  const double *random;  /* from 0 to below 1, (N, S) */
  int64_t *ids;          /* (N, S) */
  double *surprisals;    /* in nats, (N, S) */
} Draws;

/* Flags of the processor that change results: x86 can take subnormal numbers for zeros, and torch can make it so. */
#if defined(__SSE__)
#include <xmmintrin.h>
#define BEGIN_IEEE const unsigned flags = _mm_getcsr(); _mm_setcsr(0x1f80)
#define END_IEEE _mm_setcsr(flags)
#elif defined(__aarch64__)
#define BEGIN_IEEE uint64_t flags; __asm__ volatile("mrs %0, fpcr\n msr fpcr, xzr" : "=&r"(flags) : : "memory")
#define END_IEEE __asm__ volatile("msr fpcr, %0" : : "r"(flags) : "memory")
#else
#define BEGIN_IEEE
#define END_IEEE
#endif

#define INLINE static inline __attribute__((always_inline))

static const double BELOW_ONE = 1 - 0x1p-52; /* a random number times this, times a sum, is below the sum */
static const double LARGEST_EXPONENT = 400;  /* rows whose highest scaled logit is beyond are shifted to 0 */

static int64_t count_gates(enum cell cell) { return cell == RNN ? 1 : cell == LSTM ? 4 : 3; }

static int64_t gates_in_row(enum cell cell) { return cell == RNN ? 1 : 4; } /* the GRU keeps W x and U h of n apart */

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static void *allocate(int64_t numbers, size_t size) {
  return malloc((size_t)(numbers > 0 ? numbers : 1) * size);
}

/* exp in double precision: e^x = 2^n e^r with |r| <= ln(2) / 2, and e^r by its Taylor series. Below -708, where the
   result would not be a normal number, it is e^-708: nothing beside the weights that it is added to. */
INLINE double exp_double(double x) {
  const double to_integer = 0x1.8p52; /* added, then subtracted: rounds to the nearest whole number */
  x = x < -708 ? -708 : x;
  double shifted = x * 0x1.71547652b82fep+0 + to_integer, n = shifted - to_integer;
  double r = x - n * 0x1.62e42fee00000p-1 - n * 0x1.a39ef35793c76p-33; /* ln(2) in two parts */
  double sum = 1.0 / 6227020800;
  sum = sum * r + 1.0 / 479001600;
  sum = sum * r + 1.0 / 39916800;
  sum = sum * r + 1.0 / 3628800;
  sum = sum * r + 1.0 / 362880;
  sum = sum * r + 1.0 / 40320;
  sum = sum * r + 1.0 / 5040;
  sum = sum * r + 1.0 / 720;
  sum = sum * r + 1.0 / 120;
  sum = sum * r + 1.0 / 24;
  sum = sum * r + 1.0 / 6;
  sum = sum * r + 0.5;
  sum = sum * r + 1;
  sum = sum * r + 1;
  uint64_t bits;
  memcpy(&bits, &shifted, 8);
  bits = (bits << 52) + ((uint64_t)1023 << 52);
  double power;
  memcpy(&power, &bits, 8);
  return sum * power;
}

/* Whether symbol a comes before b: the larger weight, of equals the smaller id. */
INLINE int precedes(const double *weights, int32_t a, int32_t b) {
  return weights[a] > weights[b] || (weights[a] == weights[b] && a < b);
}

static void sift_down(int32_t *heap, int64_t size, int64_t place, const double *weights) {
  for (int64_t child; (child = 2 * place + 1) < size; place = child) {
    if (child + 1 < size && precedes(weights, heap[child + 1], heap[child])) child++;
    if (precedes(weights, heap[place], heap[child])) return;
    int32_t moved = heap[place];
    heap[place] = heap[child];
    heap[child] = moved;
  }
}

/* Set to 0 the weights that top-k and top-p exclude. A heap ranks as many of the likeliest as are needed.
   kept: room for as many weights; heap: for as many ids. */
static void limit(double *weights, int64_t symbols, int64_t top_k, double top_p, double *kept, int32_t *heap) {
  int64_t size = symbols, most = smaller(top_k, symbols);
  double total = 0, sum = 0;
  for (int64_t id = 0; id < symbols; id++) heap[id] = (int32_t)id, kept[id] = 0;
  for (int64_t place = symbols / 2; place-- > 0;) sift_down(heap, symbols, place, weights);
  /* 1) top-k: the first come off the heap; they are stored behind it, the likeliest last */
  for (int64_t rank = 0; most < symbols && rank < most; rank++) {
    int32_t likeliest = heap[0];
    heap[0] = heap[--size];
    sift_down(heap, size, 0, weights);
    heap[size] = likeliest;
    kept[likeliest] = weights[likeliest];
  }
  const double *of_all = most < symbols ? kept : weights;
  for (int64_t id = 0; id < symbols; id++) total += of_all[id];
  /* 2) top-p: of these, in the order of rank, until their sum reaches its share */
  for (int64_t rank = 0; top_p < 1 && rank < most; rank++) {
    int32_t likeliest = heap[most < symbols ? symbols - 1 - rank : 0];
    if (rank > 0 && sum >= top_p * total) {
      if (most == symbols) break;
      kept[likeliest] = 0;
      continue;
    }
    sum += weights[likeliest];
    kept[likeliest] = weights[likeliest];
    if (most == symbols) {
      heap[0] = heap[--size];
      sift_down(heap, size, 0, weights);
    }
  }
  memcpy(weights, kept, (size_t)symbols * sizeof *weights);
}

#endif /* what all instruction sets share */

#ifdef LANES

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(name) JOIN(name, LANES)
#define PARTS (PANEL / LANES) /* vectors in a panel */
#define UNROLL _Pragma("GCC unroll 16")
#define EACH(i, count) UNROLL for (int i = 0; i < (count); i++)

typedef float NAME(vector) __attribute__((vector_size(4 * LANES)));
typedef int32_t NAME(bits) __attribute__((vector_size(4 * LANES)));
#define vector NAME(vector)
#define bits NAME(bits)

INLINE vector NAME(load)(const void *from) {
  vector v;
  memcpy(&v, from, sizeof v);
  return v;
}

INLINE void NAME(store)(float *to, vector v) { memcpy(to, &v, sizeof v); }

INLINE vector NAME(all)(float number) { return (vector){0} + number; }

INLINE vector NAME(select)(bits mask, vector yes, vector no) {
  return (vector)(((bits)yes & mask) | ((bits)no & ~mask));
}

/* e^x = 2^n e^r with |r| <= ln(2) / 2, and e^r by its Taylor series. 2^n is multiplied in two steps, because it need
   not be a normal number. */
INLINE vector NAME(exp)(vector x) {
  const vector to_integer = NAME(all)(0x1.8p23f); /* added, then subtracted: rounds to the nearest whole number */
  x = NAME(select)(x > 89.0f, NAME(all)(89.0f), x);
  x = NAME(select)(x < -105.0f, NAME(all)(-105.0f), x);
  vector shifted = x * 0x1.715476p+0f + to_integer, n = shifted - to_integer;
  vector r = x - n * 0.693359375f - n * -2.12194440e-4f; /* ln(2) in two parts */
  vector sum = NAME(all)(1.0f / 5040);
  sum = sum * r + 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  bits exponent = (bits)shifted - (bits)to_integer, half = exponent >> 1;
  return sum * (vector)((half + 127) << 23) * (vector)((exponent - half + 127) << 23);
}

INLINE vector NAME(sigmoid)(vector x) { return 1.0f / (1.0f + NAME(exp)(-x)); }

/* Near 0 a polynomial (a minimax fit of relative error 4e-9), elsewhere 1 - 2 / (e^2|x| + 1). */
INLINE vector NAME(tanh)(vector x) {
  bits sign = (bits)x & INT32_MIN;
  vector size = (vector)((bits)x ^ sign), square = x * x;
  vector sum = NAME(all)(-0.00570498633f);
  sum = sum * square + 0.0206390866f;
  sum = sum * square + -0.0537397148f;
  sum = sum * square + 0.133314422f;
  sum = sum * square + -0.333332819f;
  vector near = sum * square * x + x;
  vector far = 1.0f - 2.0f / (NAME(exp)(size + size) + 1.0f);
  return NAME(select)(size < 0.625f, near, (vector)((bits)far | sign));
}

/* Add the terms of `panels` panels times `rows` rows to out. Both are constants where this is called, and the sums stay
   in registers. x and out have rows x_stride and out_stride numbers apart. next: memory that is needed soon; with
   several rows, next_step bytes of it are prefetched at each term. */
INLINE void NAME(tile)(int panels, int rows, int is_bfloat16, const void *matrix, int64_t terms, const float *x,
                       int64_t x_stride, float *out, int64_t out_stride, const char *next, int64_t next_step) {
  const float *words = matrix;
  vector sums[WIDE][TALLEST][PARTS];
  EACH(p, panels) EACH(r, rows) EACH(i, PARTS)
    sums[p][r][i] = NAME(load)(out + r * out_stride + p * PANEL + i * LANES);
  if (is_bfloat16)
    for (int64_t k = 0; k < terms; k += 2)
      EACH(p, panels) EACH(r, rows) EACH(i, PARTS) {
        bits pair = (bits)NAME(load)(words + (p * terms + k) / 2 * PANEL + i * LANES);
        sums[p][r][i] += (vector)(pair << 16) * x[r * x_stride + k];
        sums[p][r][i] += (vector)(pair & -65536) * x[r * x_stride + k + 1];
      }
  else
    for (int64_t k = 0; k < terms; k++)
      EACH(p, panels) {
        vector weights[PARTS];
        EACH(i, PARTS) weights[i] = NAME(load)(words + (p * terms + k) * PANEL + i * LANES);
        if (rows > 1) __builtin_prefetch(next + k * next_step, 0, 2); /* into the second level */
        EACH(r, rows) EACH(i, PARTS) sums[p][r][i] += weights[i] * x[r * x_stride + k];
      }
  EACH(p, panels) EACH(r, rows) EACH(i, PARTS)
    NAME(store)(out + r * out_stride + p * PANEL + i * LANES, sums[p][r][i]);
}

/* rows of a tile, so many that the sums fill the registers: half of 32 with AVX-512, half of 16 with AVX2 */
#define TALL (LANES == 16 ? 16 : LANES == 8 ? 4 : 2)

/* Add the product of one panel with R rows to out. next, next_step: as of a tile. */
static void NAME(panel_product)(const float *panel, int64_t terms, const float *x, int64_t x_stride, int64_t rows,
                                float *out, int64_t out_stride, const char *next, int64_t next_step) {
  int64_t r = 0;
#define ROWS(count) \
  for (; r + (count) <= rows; r += (count)) \
    NAME(tile)(1, count, 0, panel, terms, x + r * x_stride, x_stride, out + r * out_stride, out_stride, next, \
               next_step);
  ROWS(TALL)
  if (TALL > 8) ROWS(8)
  if (TALL > 4) ROWS(4)
  if (TALL > 2) ROWS(2)
  ROWS(1)
#undef ROWS
}

/* Add a matrix times R rows to out: out (R, panels * PANEL) += x (R, terms) times matrix (panels, terms, PANEL).
   wide: room for a panel in float32. */
static void NAME(product)(const void *matrix, int is_bfloat16, int64_t panels, int64_t terms, const float *x,
                          int64_t x_stride, int64_t rows, float *out, int64_t out_stride, float *wide) {
  const int64_t size = terms * PANEL * (is_bfloat16 ? 2 : 4); /* bytes of a panel */
  const char *panel = matrix;
  if (rows == 1) {
    int64_t p = 0;
#define PANELS(count, is_bfloat16) \
  for (; p + (count) <= panels; p += (count)) \
    NAME(tile)(count, 1, is_bfloat16, panel + p * size, terms, x, 0, out + p * PANEL, 0, NULL, 0);
    if (is_bfloat16) {
      PANELS(WIDE, 1)
      PANELS(1, 1)
    } else {
      PANELS(WIDE, 0)
      PANELS(1, 0)
    }
#undef PANELS
    return;
  }
  for (int64_t p = 0; p < panels; p++, panel += size) {
    const float *numbers = (const float *)panel;
    if (is_bfloat16) { /* widened once for all rows */
      for (int64_t k = 0; k < terms; k += 2)
        EACH(i, PARTS) {
          bits pair = (bits)NAME(load)(numbers + k / 2 * PANEL + i * LANES);
          NAME(store)(wide + k * PANEL + i * LANES, (vector)(pair << 16));
          NAME(store)(wide + (k + 1) * PANEL + i * LANES, (vector)(pair & -65536));
        }
      numbers = wide;
    }
    NAME(panel_product)(numbers, terms, x, x_stride, rows, out + p * PANEL, out_stride, panel + PANELS_AHEAD * size,
                        size / terms);
  }
}

/* Add the product of a row with some terms of a few panels, a constant, to sums (count, PANEL), a partial sum for each
   output of a panel. matrix: panels that are panel_size bytes apart, from the first of those terms on. */
INLINE void NAME(tile_back)(int panels, int is_bfloat16, const char *matrix, int64_t panel_size, int64_t count,
                            const float *row, float *sums) {
  vector x[WIDE][PARTS];
  EACH(p, panels) EACH(i, PARTS) x[p][i] = NAME(load)(row + p * PANEL + i * LANES);
  if (is_bfloat16)
    for (int64_t k = 0; k < count; k += 2)
      EACH(i, PARTS) {
        vector first = NAME(load)(sums + k * PANEL + i * LANES), second = NAME(load)(sums + (k + 1) * PANEL + i * LANES);
        EACH(p, panels) {
          bits pair = (bits)NAME(load)((const float *)(matrix + p * panel_size) + k / 2 * PANEL + i * LANES);
          first += (vector)(pair << 16) * x[p][i];
          second += (vector)(pair & -65536) * x[p][i];
        }
        NAME(store)(sums + k * PANEL + i * LANES, first);
        NAME(store)(sums + (k + 1) * PANEL + i * LANES, second);
      }
  else
    for (int64_t k = 0; k < count; k++)
      EACH(i, PARTS) {
        vector sum = NAME(load)(sums + k * PANEL + i * LANES);
        EACH(p, panels)
          sum += NAME(load)((const float *)(matrix + p * panel_size) + k * PANEL + i * LANES) * x[p][i];
        NAME(store)(sums + k * PANEL + i * LANES, sum);
      }
}

/* Multiply a row (G*U) by U (G*U, U) of a layer: the way that gradients take. out: (U).
   An output has PANEL partial sums, one for each lane of the panels, which are then added in their order. */
void NAME(multiply_back)(const Model *model, int64_t layer, const float *row, float *out) {
  const int64_t units = model->units, panels = count_gates(model->cell) * units / PANEL;
  const int is_bfloat16 = model->is_bfloat16;
  const int64_t number = is_bfloat16 ? 2 : 4, size = units * PANEL * number; /* bytes of a number and of a panel */
  float sums[BACK_TERMS * PANEL];
  BEGIN_IEEE;
  for (int64_t first = 0; first < units; first += BACK_TERMS) {
    const int64_t count = smaller(BACK_TERMS, units - first);
    const char *matrix = (const char *)model->layer[layer].recurrent + first * PANEL * number;
    int64_t p = 0;
    memset(sums, 0, sizeof sums);
#define PANELS(count_, is_bfloat16) \
  for (; p + (count_) <= panels; p += (count_)) \
    NAME(tile_back)(count_, is_bfloat16, matrix + p * size, size, count, row + p * PANEL, sums);
    if (is_bfloat16) {
      PANELS(WIDE, 1)
      PANELS(1, 1)
    } else {
      PANELS(WIDE, 0)
      PANELS(1, 0)
    }
#undef PANELS
    for (int64_t k = 0; k < count; k++) {
      out[first + k] = 0;
      for (int i = 0; i < PANEL; i++) out[first + k] += sums[k * PANEL + i];
    }
  }
  END_IEEE;
}

/* Compute the next state of a text. row: W x + b + U h of each gate, U numbers each; of the GRU's n apart. */
static void NAME(gates)(enum cell cell, int64_t units, const float *row, float *hidden, float *cell_state) {
  const float *second = row + units, *third = row + 2 * units, *fourth = row + 3 * units;
  for (int64_t u = 0; u < units; u += LANES) {
    vector h, first = NAME(load)(row + u);
    if (cell == RNN) {
      h = NAME(tanh)(first);
    } else if (cell == LSTM) { /* c' = f c + i g, h' = o tanh(c') */
      vector i = NAME(sigmoid)(first), f = NAME(sigmoid)(NAME(load)(second + u));
      vector g = NAME(tanh)(NAME(load)(third + u)), o = NAME(sigmoid)(NAME(load)(fourth + u));
      vector c = f * NAME(load)(cell_state + u) + i * g;
      NAME(store)(cell_state + u, c);
      h = o * NAME(tanh)(c);
    } else { /* n = tanh(W x + b + r (U h + d)), h' = n + z (h - n) */
      vector r = NAME(sigmoid)(first), z = NAME(sigmoid)(NAME(load)(second + u));
      vector n = NAME(tanh)(NAME(load)(third + u) + r * NAME(load)(fourth + u));
      h = n + z * (NAME(load)(hidden + u) - n);
    }
    NAME(store)(hidden + u, h);
  }
}

/* Add a matrix times R rows to out, for Python: for the table of the first layer, for tests and for measurements.
   x: (R, terms). out: (R, panels * PANEL). Returns 0, or -1 if there is no memory. */
int NAME(add_product)(const void *matrix, int is_bfloat16, int64_t panels, int64_t terms, int64_t rows, const float *x,
                      float *out) {
  float *wide = allocate(PANEL * terms, sizeof *wide);
  if (!wide) return -1;
  BEGIN_IEEE;
  NAME(product)(matrix, is_bfloat16, panels, terms, x, terms, rows, out, panels * PANEL, wide);
  END_IEEE;
  free(wide);
  return 0;
}

/* Take R rows through a layer: T steps of S texts each, R = T * S.
   ids: (R) in the first layer; x: (R, U) in the others, overwritten with the hidden states after each step.
   rows: room for R rows of gates. stride: of the texts' hidden and cell states. */
static void NAME(read_layer)(const Model *model, const Layer *layer, int64_t steps, int64_t texts, const int64_t *ids,
                             float *x, float *hidden, float *cell_state, float *rows, float *wide, float *embedded) {
  const int64_t units = model->units, gates = count_gates(model->cell), width = gates * units;
  const int64_t row_width = gates_in_row(model->cell) * units, panels = units / PANEL;
  /* 1) W x + b, for all steps at once */
  for (int64_t r = 0; r < steps * texts; r++) {
    float *row = rows + r * row_width;
    memcpy(row, layer->table ? layer->table + ids[r] * width : layer->bias, (size_t)width * sizeof *row);
    if (layer->embedding)
      memcpy(embedded + r * layer->terms, layer->embedding + ids[r] * layer->terms,
             (size_t)layer->terms * sizeof *row);
    if (model->cell == GRU) memcpy(row + width, layer->hidden_bias, (size_t)units * sizeof *row);
  }
  if (!layer->table)
    NAME(product)(layer->inputs, model->is_bfloat16, gates * panels, layer->terms, layer->embedding ? embedded : x,
                  layer->terms, steps * texts, rows, row_width, wide);
  /* 2) one step after another */
  const int64_t before_n = model->cell == GRU ? 2 * panels : gates * panels; /* panels whose sums go on from W x + b */
  const char *n = (const char *)layer->recurrent + before_n * PANEL * units * (model->is_bfloat16 ? 2 : 4);
  for (int64_t t = 0; t < steps; t++) {
    float *row = rows + t * texts * row_width;
    NAME(product)(layer->recurrent, model->is_bfloat16, before_n, units, hidden, units, texts, row, row_width, wide);
    if (model->cell == GRU)
      NAME(product)(n, model->is_bfloat16, panels, units, hidden, units, texts, row + width, row_width, wide);
    for (int64_t s = 0; s < texts; s++)
      NAME(gates)(model->cell, units, row + s * row_width, hidden + s * units,
                  cell_state ? cell_state + s * units : NULL);
    memcpy(x + t * texts * units, hidden, (size_t)(texts * units) * sizeof *x);
  }
}

/* Read T symbols of each of S texts.
   ids: (T, S). hidden, cell_state: (layers, S, U), changed; cell_state only of the LSTM, else null.
   top: the last layer's hidden states after each step, (T, S, U), or null. Returns 0, or -1 if there is no memory. */
int NAME(read)(const Model *model, int64_t steps, int64_t texts, const int64_t *ids, float *hidden, float *cell_state,
               float *top) {
  const int64_t units = model->units, group = smaller(texts, PASS_TEXTS);
  const int64_t most = texts > 0 && PASS_ROWS / group > 1 ? PASS_ROWS / group : 1; /* steps at a time */
  const int64_t rows = smaller(steps, most) * group, first_terms = model->layer->terms;
  const int64_t widest = units > first_terms ? units : first_terms;
  int64_t *group_ids = allocate(rows, sizeof *group_ids);
  float *x = allocate(rows * (units + widest + gates_in_row(model->cell) * units) + PANEL * widest, sizeof *x);
  float *embedded = x + rows * units, *gate_rows = embedded + rows * widest;
  float *wide = gate_rows + rows * gates_in_row(model->cell) * units;
  if (!group_ids || !x) {
    free(group_ids);
    free(x);
    return -1;
  }
  BEGIN_IEEE;
  for (int64_t s = 0; s < texts; s += group) {
    const int64_t side = smaller(group, texts - s);
    for (int64_t t = 0; t < steps; t += most) {
      const int64_t part = smaller(most, steps - t);
      for (int64_t i = 0; i < part; i++)
        memcpy(group_ids + i * side, ids + (t + i) * texts + s, (size_t)side * sizeof *ids);
      for (int64_t l = 0; l < model->layers; l++)
        NAME(read_layer)(model, model->layer + l, part, side, group_ids, x, hidden + (l * texts + s) * units,
                         cell_state ? cell_state + (l * texts + s) * units : NULL, gate_rows, wide, embedded);
      for (int64_t i = 0; top && i < part; i++)
        memcpy(top + ((t + i) * texts + s) * units, x + i * side * units, (size_t)(side * units) * sizeof *x);
    }
  }
  END_IEEE;
  free(group_ids);
  free(x);
  return 0;
}

/* Compute the logits (R, padded V) of R hidden states (R, U) of the last layer. wide: room for a panel. */
static void NAME(head)(const Model *model, int64_t rows, const float *hidden, float *logits, float *wide) {
  for (int64_t r = 0; r < rows; r++)
    memcpy(logits + r * model->padded_symbols, model->head_bias, (size_t)model->padded_symbols * sizeof *logits);
  NAME(product)(model->head, model->is_bfloat16, model->padded_symbols / PANEL, model->units, hidden, model->units,
                rows, logits, model->padded_symbols, wide);
}

/* The same for Python. Returns 0, or -1 if there is no memory. */
int NAME(logits)(const Model *model, int64_t rows, const float *hidden, float *logits) {
  float *wide = allocate(PANEL * model->units, sizeof *wide);
  if (!wide) return -1;
  BEGIN_IEEE;
  NAME(head)(model, rows, hidden, logits, wide);
  END_IEEE;
  free(wide);
  return 0;
}

/* Compute the weight of each symbol, the exponential of its logit times scale. */
static void NAME(weigh)(const float *logits, int64_t symbols, double scale, double highest, double *weights) {
  const double top = highest * scale, shift = top > -LARGEST_EXPONENT && top < LARGEST_EXPONENT ? 0 : top;
  for (int64_t id = 0; id < symbols; id++) weights[id] = exp_double(logits[id] * scale - shift);
}

/* Return the surprisal in nats of a symbol. The sum has PANEL partial sums, in double precision. */
static double NAME(surprisal)(const float *logits, int64_t symbols, float highest, int64_t id) {
  double sums[PANEL] = {0}, sum = 0;
  int64_t whole = symbols / PANEL * PANEL;
  float numbers[PANEL], last[PANEL];
  for (int64_t first = 0; first < symbols; first += PANEL) {
    const float *from = logits + first;
    if (first == whole) { /* the rest, and padding that adds 0 */
      for (int64_t i = 0; i < PANEL; i++) last[i] = first + i < symbols ? from[i] : -INFINITY;
      from = last;
    }
    EACH(i, PARTS) NAME(store)(numbers + i * LANES, NAME(exp)(NAME(load)(from + i * LANES) - highest));
    for (int i = 0; i < PANEL; i++) sums[i] += numbers[i];
  }
  for (int i = 0; i < PANEL; i++) sum += sums[i];
  return log(sum) - (logits[id] - highest);
}

/* Compute the surprisals in nats (R) of ids (R), predicted by hidden states (R, U) of the last layer. NaN or infinite
   where a logit is not finite. Returns 0, or -1 if there is no memory. */
int NAME(score)(const Model *model, int64_t rows, const float *hidden, const int64_t *ids, double *surprisals) {
  const int64_t padded = model->padded_symbols, group = smaller(rows, HEAD_ROWS);
  float *logits = allocate(group * padded + PANEL * model->units, sizeof *logits);
  if (!logits) return -1;
  BEGIN_IEEE;
  for (int64_t first = 0; first < rows; first += group) {
    const int64_t part = smaller(group, rows - first);
    NAME(head)(model, part, hidden + first * model->units, logits, logits + group * padded);
    for (int64_t r = 0; r < part; r++) {
      const float *row = logits + r * padded;
      float highest = row[0];
      for (int64_t id = 1; id < model->symbols; id++) highest = row[id] > highest ? row[id] : highest;
      surprisals[first + r] = NAME(surprisal)(row, model->symbols, highest, ids[first + r]);
    }
  }
  END_IEEE;
  free(logits);
  return 0;
}

/* Draw a symbol of a text. Returns its id, or -1 if a logit is not finite. weights, kept, heap: room for V each. */
static int64_t NAME(draw)(const float *logits, int64_t symbols, const Draws *draws, int64_t text, double random,
                          double *surprisal, double *weights, double *kept, int32_t *heap) {
  int64_t likeliest = 0;
  int is_finite = 1;
  float highest = logits[0];
  for (int64_t id = 0; id < symbols; id++) {
    is_finite &= logits[id] - logits[id] == 0; /* NaN if it is infinite or NaN */
    highest = logits[id] > highest ? logits[id] : highest;
  }
  if (!is_finite) return -1;
  while (logits[likeliest] < highest) likeliest++;
  int64_t id = likeliest;
  if (draws->scale[text] > 0) {
    NAME(weigh)(logits, symbols, draws->scale[text], highest, weights);
    if (draws->top_k[text] < symbols || draws->top_p[text] < 1)
      limit(weights, symbols, draws->top_k[text], draws->top_p[text], kept, heap);
    for (int64_t next = 1; next < symbols; next++) weights[next] += weights[next - 1];
    const double target = random * BELOW_ONE * weights[symbols - 1];
    for (id = 0; id < symbols - 1 && weights[id] <= target;) id++;
  }
  *surprisal = NAME(surprisal)(logits, symbols, highest, id);
  return id;
}

/* Write N symbols of each of S texts, drawing the first from the present state; the last that is drawn is not read.
   Returns 0, -1 if there is no memory, or -2 if a logit is not finite. */
int NAME(write)(const Model *model, int64_t steps, int64_t texts, float *hidden, float *cell_state,
                const Draws *draws) {
  const int64_t symbols = model->symbols, group = smaller(texts, HEAD_ROWS);
  const float *top = hidden + (model->layers - 1) * texts * model->units;
  float *logits = allocate(group * model->padded_symbols + PANEL * model->units, sizeof *logits);
  float *wide = logits + group * model->padded_symbols;
  double *weights = allocate(2 * symbols, sizeof *weights);
  int32_t *heap = allocate(symbols, sizeof *heap);
  int failure = logits && weights && heap ? 0 : -1;
  for (int64_t t = 0; t < steps && !failure; t++) {
    if (t > 0) failure = NAME(read)(model, 1, texts, draws->ids + (t - 1) * texts, hidden, cell_state, NULL);
    BEGIN_IEEE;
    for (int64_t s = 0; s < texts && !failure; s += group) {
      const int64_t side = smaller(group, texts - s);
      NAME(head)(model, side, top + s * model->units, logits, wide);
      for (int64_t r = 0; r < side && !failure; r++) {
        const int64_t place = t * texts + s + r;
        draws->ids[place] = NAME(draw)(logits + r * model->padded_symbols, symbols, draws, s + r,
                                       draws->random[place], draws->surprisals + place, weights, weights + symbols, heap);
        if (draws->ids[place] < 0) failure = -2;
      }
    }
    END_IEEE;
  }
  free(logits);
  free(weights);
  free(heap);
  return failure;
}

/* exp and tanh of n numbers, n a multiple of LANES, for tests. */
void NAME(exp_of)(int64_t n, const float *x, float *out) {
  BEGIN_IEEE;
  for (int64_t i = 0; i < n; i += LANES) NAME(store)(out + i, NAME(exp)(NAME(load)(x + i)));
  END_IEEE;
}

void NAME(tanh_of)(int64_t n, const float *x, float *out) {
  BEGIN_IEEE;
  for (int64_t i = 0; i < n; i += LANES) NAME(store)(out + i, NAME(tanh)(NAME(load)(x + i)));
  END_IEEE;
}

#undef vector
#undef bits
#undef EACH
#undef UNROLL
#undef TALL
#undef PARTS
#undef NAME
#undef JOIN
#undef JOIN_

#else

#if defined(ONE_PROCESSOR)
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
#include "kernels.c"

int widest_lanes(void) { return LANES; }

#else

#define LANES 4 /* SSE2, NEON, or what the compiler makes of such vectors */
#include "kernels.c"
#undef LANES

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
#define LANES 8
#include "kernels.c"
#undef LANES
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif
#define LANES 16
#include "kernels.c"
#undef LANES
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

/* Return the widest of these that this processor has. */
int widest_lanes(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return 16;
  if (__builtin_cpu_supports("avx2")) return 8;
#endif
  return 4;
}

#endif

#endif
