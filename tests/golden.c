/* Writes with the kernels, on a processor that has no Python here: under an emulator.

Arguments: a file that tests/test_golden.py made, and where the ids go, int64 in the order (steps, texts). The file
holds int64 numbers, and arrays, each after its size in bytes, 0 for a null pointer. */

#include "../charlm/inference/kernels.c"

#include <stdio.h>

static FILE *input;

static void check(int is_right, const char *problem) {
  if (is_right) return;
  fprintf(stderr, "%s\n", problem);
  exit(1);
}

static int64_t read_number(void) {
  int64_t number;
  check(fread(&number, sizeof number, 1, input) == 1, "the file ends too early");
  return number;
}

static void *read_array(void) {
  size_t size = (size_t)read_number();
  if (size == 0) return NULL;
  void *array = aligned_alloc(64, (size + 63) / 64 * 64);
  check(array != NULL, "there is no memory left");
  check(fread(array, 1, size, input) == size, "the file ends too early");
  return array;
}

int main(int count, char **arguments) {
  check(count == 3, "usage: golden MODEL IDS");
  input = fopen(arguments[1], "rb");
  check(input != NULL, "the file cannot be opened");
  Model model = {.cell = (int32_t)read_number(), .is_bfloat16 = (int32_t)read_number()};
  model.layers = read_number();
  model.units = read_number();
  model.symbols = read_number();
  model.padded_symbols = read_number();
  Layer *layers = calloc((size_t)model.layers, sizeof *layers);
  check(layers != NULL, "there is no memory left");
  for (int64_t l = 0; l < model.layers; l++) {
    layers[l].terms = read_number();
    layers[l].table = read_array();
    layers[l].embedding = read_array();
    layers[l].inputs = read_array();
    layers[l].recurrent = read_array();
    layers[l].bias = read_array();
    layers[l].hidden_bias = read_array();
  }
  model.layer = layers;
  model.head = read_array();
  model.head_bias = read_array();
  const int64_t steps = read_number(), texts = read_number();
  Draws draws = {.scale = read_array()};
  draws.top_k = read_array();
  draws.top_p = read_array();
  draws.random = read_array();
  draws.ids = calloc((size_t)(steps * texts), sizeof *draws.ids);
  draws.surprisals = calloc((size_t)(steps * texts), sizeof *draws.surprisals);
  float *hidden = calloc((size_t)(model.layers * texts * model.units), sizeof *hidden);
  float *cell_state = model.cell == LSTM ? calloc((size_t)(model.layers * texts * model.units), sizeof *cell_state) : NULL;
  check(draws.ids && draws.surprisals && hidden && (cell_state || model.cell != LSTM), "there is no memory left");
  check(write_4(&model, steps, texts, hidden, cell_state, &draws) == 0, "the kernels failed");
  FILE *output = fopen(arguments[2], "wb");
  check(output != NULL, "the ids cannot be written");
  check(fwrite(draws.ids, sizeof *draws.ids, (size_t)(steps * texts), output) == (size_t)(steps * texts) &&
            fclose(output) == 0,
        "the ids cannot be written");
  return 0;
}
