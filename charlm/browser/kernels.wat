;; The arithmetic of charlm's engine in WebAssembly with SIMD. charlm.js holds the module that is assembled from this
;; text (tests/charlm/browser/test_engine.py assembles it again and compares) and calls it.
;;
;; A sum of floating-point numbers depends on its order. Here every sum is made in the order of its terms, in one lane of
;; a vector, and every product is rounded before it is added: the lanes are different outputs, never different terms. So
;; plain JavaScript, and the C kernels of Python's engine, give the same bits.
;;
;; All parameters are places in the memory, in bytes, or counts. A matrix W lies in panels of 32 outputs, each panel term
;; after term, (panels, terms, 32). In bfloat16 a word of 32 bits holds two outputs: of eight outputs of a term in four
;; words, the lower halves are the first four.
(module
  (import "charlm" "memory" (memory 1))

  ;; to = from + W x, for weights in float32.
  (func (export "product_f32")
    (param $w i32) (param $inputs i32) (param $from i32) (param $to i32) (param $panels i32) (param $terms i32)
    (local $input i32) (local $end i32) (local $x v128)
    (local $s0 v128) (local $s1 v128) (local $s2 v128) (local $s3 v128)
    (local $s4 v128) (local $s5 v128) (local $s6 v128) (local $s7 v128)
    (local.set $end (i32.add (local.get $inputs) (i32.shl (local.get $terms) (i32.const 2))))
    (loop $panel
      (local.set $s0 (v128.load offset=0 (local.get $from)))
      (local.set $s1 (v128.load offset=16 (local.get $from)))
      (local.set $s2 (v128.load offset=32 (local.get $from)))
      (local.set $s3 (v128.load offset=48 (local.get $from)))
      (local.set $s4 (v128.load offset=64 (local.get $from)))
      (local.set $s5 (v128.load offset=80 (local.get $from)))
      (local.set $s6 (v128.load offset=96 (local.get $from)))
      (local.set $s7 (v128.load offset=112 (local.get $from)))
      (local.set $input (local.get $inputs))
      (loop $term
        (local.set $x (v128.load32_splat (local.get $input)))
        (local.set $s0 (f32x4.add (local.get $s0) (f32x4.mul (local.get $x) (v128.load offset=0 (local.get $w)))))
        (local.set $s1 (f32x4.add (local.get $s1) (f32x4.mul (local.get $x) (v128.load offset=16 (local.get $w)))))
        (local.set $s2 (f32x4.add (local.get $s2) (f32x4.mul (local.get $x) (v128.load offset=32 (local.get $w)))))
        (local.set $s3 (f32x4.add (local.get $s3) (f32x4.mul (local.get $x) (v128.load offset=48 (local.get $w)))))
        (local.set $s4 (f32x4.add (local.get $s4) (f32x4.mul (local.get $x) (v128.load offset=64 (local.get $w)))))
        (local.set $s5 (f32x4.add (local.get $s5) (f32x4.mul (local.get $x) (v128.load offset=80 (local.get $w)))))
        (local.set $s6 (f32x4.add (local.get $s6) (f32x4.mul (local.get $x) (v128.load offset=96 (local.get $w)))))
        (local.set $s7 (f32x4.add (local.get $s7) (f32x4.mul (local.get $x) (v128.load offset=112 (local.get $w)))))
        (local.set $w (i32.add (local.get $w) (i32.const 128)))
        (local.set $input (i32.add (local.get $input) (i32.const 4)))
        (br_if $term (i32.ne (local.get $input) (local.get $end))))
      (v128.store offset=0 (local.get $to) (local.get $s0))
      (v128.store offset=16 (local.get $to) (local.get $s1))
      (v128.store offset=32 (local.get $to) (local.get $s2))
      (v128.store offset=48 (local.get $to) (local.get $s3))
      (v128.store offset=64 (local.get $to) (local.get $s4))
      (v128.store offset=80 (local.get $to) (local.get $s5))
      (v128.store offset=96 (local.get $to) (local.get $s6))
      (v128.store offset=112 (local.get $to) (local.get $s7))
      (local.set $from (i32.add (local.get $from) (i32.const 128)))
      (local.set $to (i32.add (local.get $to) (i32.const 128)))
      (local.set $panels (i32.sub (local.get $panels) (i32.const 1)))
      (br_if $panel (local.get $panels))))

  ;; to = from + W x, for weights in bfloat16, which are the upper halves of float32 numbers.
  (func (export "product_bf16")
    (param $w i32) (param $inputs i32) (param $from i32) (param $to i32) (param $panels i32) (param $terms i32)
    (local $input i32) (local $end i32) (local $x v128)
    (local $pair v128) (local $upper v128)
    (local $s0 v128) (local $s1 v128) (local $s2 v128) (local $s3 v128)
    (local $s4 v128) (local $s5 v128) (local $s6 v128) (local $s7 v128)
    (local.set $upper (v128.const i32x4 0xffff0000 0xffff0000 0xffff0000 0xffff0000))
    (local.set $end (i32.add (local.get $inputs) (i32.shl (local.get $terms) (i32.const 2))))
    (loop $panel
      (local.set $s0 (v128.load offset=0 (local.get $from)))
      (local.set $s1 (v128.load offset=16 (local.get $from)))
      (local.set $s2 (v128.load offset=32 (local.get $from)))
      (local.set $s3 (v128.load offset=48 (local.get $from)))
      (local.set $s4 (v128.load offset=64 (local.get $from)))
      (local.set $s5 (v128.load offset=80 (local.get $from)))
      (local.set $s6 (v128.load offset=96 (local.get $from)))
      (local.set $s7 (v128.load offset=112 (local.get $from)))
      (local.set $input (local.get $inputs))
      (loop $term
        (local.set $x (v128.load32_splat (local.get $input)))
        (local.set $pair (v128.load offset=0 (local.get $w)))
        (local.set $s0 (f32x4.add (local.get $s0) (f32x4.mul (local.get $x) (i32x4.shl (local.get $pair) (i32.const 16)))))
        (local.set $s1 (f32x4.add (local.get $s1) (f32x4.mul (local.get $x) (v128.and (local.get $pair) (local.get $upper)))))
        (local.set $pair (v128.load offset=16 (local.get $w)))
        (local.set $s2 (f32x4.add (local.get $s2) (f32x4.mul (local.get $x) (i32x4.shl (local.get $pair) (i32.const 16)))))
        (local.set $s3 (f32x4.add (local.get $s3) (f32x4.mul (local.get $x) (v128.and (local.get $pair) (local.get $upper)))))
        (local.set $pair (v128.load offset=32 (local.get $w)))
        (local.set $s4 (f32x4.add (local.get $s4) (f32x4.mul (local.get $x) (i32x4.shl (local.get $pair) (i32.const 16)))))
        (local.set $s5 (f32x4.add (local.get $s5) (f32x4.mul (local.get $x) (v128.and (local.get $pair) (local.get $upper)))))
        (local.set $pair (v128.load offset=48 (local.get $w)))
        (local.set $s6 (f32x4.add (local.get $s6) (f32x4.mul (local.get $x) (i32x4.shl (local.get $pair) (i32.const 16)))))
        (local.set $s7 (f32x4.add (local.get $s7) (f32x4.mul (local.get $x) (v128.and (local.get $pair) (local.get $upper)))))
        (local.set $w (i32.add (local.get $w) (i32.const 64)))
        (local.set $input (i32.add (local.get $input) (i32.const 4)))
        (br_if $term (i32.ne (local.get $input) (local.get $end))))
      (v128.store offset=0 (local.get $to) (local.get $s0))
      (v128.store offset=16 (local.get $to) (local.get $s1))
      (v128.store offset=32 (local.get $to) (local.get $s2))
      (v128.store offset=48 (local.get $to) (local.get $s3))
      (v128.store offset=64 (local.get $to) (local.get $s4))
      (v128.store offset=80 (local.get $to) (local.get $s5))
      (v128.store offset=96 (local.get $to) (local.get $s6))
      (v128.store offset=112 (local.get $to) (local.get $s7))
      (local.set $from (i32.add (local.get $from) (i32.const 128)))
      (local.set $to (i32.add (local.get $to) (i32.const 128)))
      (local.set $panels (i32.sub (local.get $panels) (i32.const 1)))
      (br_if $panel (local.get $panels))))

  ;; e^x = 2^n e^r with |r| <= ln(2) / 2, and e^r by its Taylor series. 2^n is multiplied in two steps, because it need
  ;; not be a normal number.
  (func $exp (param $x v128) (result v128)
    (local $shifted v128) (local $n v128) (local $r v128) (local $sum v128) (local $half v128)
    (local.set $x (v128.bitselect (f32x4.splat (f32.const 89)) (local.get $x)
      (f32x4.gt (local.get $x) (f32x4.splat (f32.const 89)))))
    (local.set $x (v128.bitselect (f32x4.splat (f32.const -105)) (local.get $x)
      (f32x4.lt (local.get $x) (f32x4.splat (f32.const -105)))))
    ;; adding 1.5 * 2^23 and subtracting it again rounds to the nearest whole number
    (local.set $shifted (f32x4.add (f32x4.splat (f32.const 0x1.8p23))
      (f32x4.mul (local.get $x) (f32x4.splat (f32.const 0x1.715476p+0)))))
    (local.set $n (f32x4.sub (local.get $shifted) (f32x4.splat (f32.const 0x1.8p23))))
    ;; r = x - n ln(2), with ln(2) in two parts
    (local.set $r (f32x4.sub (local.get $x) (f32x4.mul (local.get $n) (f32x4.splat (f32.const 0.693359375)))))
    (local.set $r (f32x4.sub (local.get $r) (f32x4.mul (local.get $n) (f32x4.splat (f32.const -2.12194440e-4)))))
    (local.set $sum (f32x4.splat (f32.const 0x1.a01a02p-13))) ;; 1 / 5040
    (local.set $sum (f32x4.add (f32x4.mul (local.get $sum) (local.get $r)) (f32x4.splat (f32.const 0x1.6c16c2p-10)))) ;; 1 / 720
    (local.set $sum (f32x4.add (f32x4.mul (local.get $sum) (local.get $r)) (f32x4.splat (f32.const 0x1.111112p-7)))) ;; 1 / 120
    (local.set $sum (f32x4.add (f32x4.mul (local.get $sum) (local.get $r)) (f32x4.splat (f32.const 0x1.555556p-5)))) ;; 1 / 24
    (local.set $sum (f32x4.add (f32x4.mul (local.get $sum) (local.get $r)) (f32x4.splat (f32.const 0x1.555556p-3)))) ;; 1 / 6
    (local.set $sum (f32x4.add (f32x4.mul (local.get $sum) (local.get $r)) (f32x4.splat (f32.const 0.5))))
    (local.set $sum (f32x4.add (f32x4.mul (local.get $sum) (local.get $r)) (f32x4.splat (f32.const 1))))
    (local.set $sum (f32x4.add (f32x4.mul (local.get $sum) (local.get $r)) (f32x4.splat (f32.const 1))))
    (local.set $n (i32x4.sub (local.get $shifted) (f32x4.splat (f32.const 0x1.8p23))))
    (local.set $half (i32x4.shr_s (local.get $n) (i32.const 1)))
    (f32x4.mul
      (f32x4.mul (local.get $sum) (call $power (local.get $half)))
      (call $power (i32x4.sub (local.get $n) (local.get $half)))))

  ;; 2^n, as the exponent of a float
  (func $power (param $n v128) (result v128)
    (i32x4.shl (i32x4.add (local.get $n) (i32x4.splat (i32.const 127))) (i32.const 23)))

  (func $sigmoid (param $x v128) (result v128)
    (f32x4.div (f32x4.splat (f32.const 1))
      (f32x4.add (f32x4.splat (f32.const 1)) (call $exp (f32x4.neg (local.get $x))))))

  ;; Near 0 a polynomial (a minimax fit of relative error 4e-9), elsewhere 1 - 2 / (e^2|x| + 1).
  (func $tanh (param $x v128) (result v128)
    (local $sign v128) (local $size v128) (local $square v128) (local $near v128) (local $far v128)
    (local.set $sign (v128.and (local.get $x) (f32x4.splat (f32.const -0))))
    (local.set $size (v128.xor (local.get $x) (local.get $sign)))
    (local.set $square (f32x4.mul (local.get $x) (local.get $x)))
    (local.set $near (f32x4.splat (f32.const -0.00570498633)))
    (local.set $near (f32x4.add (f32x4.mul (local.get $near) (local.get $square)) (f32x4.splat (f32.const 0.0206390866))))
    (local.set $near (f32x4.add (f32x4.mul (local.get $near) (local.get $square)) (f32x4.splat (f32.const -0.0537397148))))
    (local.set $near (f32x4.add (f32x4.mul (local.get $near) (local.get $square)) (f32x4.splat (f32.const 0.133314422))))
    (local.set $near (f32x4.add (f32x4.mul (local.get $near) (local.get $square)) (f32x4.splat (f32.const -0.333332819))))
    (local.set $near (f32x4.add (local.get $x)
      (f32x4.mul (f32x4.mul (local.get $near) (local.get $square)) (local.get $x))))
    (local.set $far (f32x4.sub (f32x4.splat (f32.const 1)) (f32x4.div (f32x4.splat (f32.const 2))
      (f32x4.add (call $exp (f32x4.add (local.get $size) (local.get $size))) (f32x4.splat (f32.const 1))))))
    (v128.bitselect (local.get $near) (v128.or (local.get $far) (local.get $sign))
      (f32x4.lt (local.get $size) (f32x4.splat (f32.const 0.625)))))

  ;; h' = tanh(sums). `units`: a multiple of 4, as in all gates.
  (func (export "rnn") (param $sums i32) (param $hidden i32) (param $units i32)
    (loop $unit
      (v128.store (local.get $hidden) (call $tanh (v128.load (local.get $sums))))
      (local.set $sums (i32.add (local.get $sums) (i32.const 16)))
      (local.set $hidden (i32.add (local.get $hidden) (i32.const 16)))
      (local.set $units (i32.sub (local.get $units) (i32.const 4)))
      (br_if $unit (local.get $units))))

  ;; c' = sigmoid(f) c + sigmoid(i) tanh(g); h' = sigmoid(o) tanh(c'), with the sums of i, f, g, o one after another.
  (func (export "lstm") (param $i i32) (param $hidden i32) (param $cell i32) (param $units i32)
    (local $f i32) (local $g i32) (local $o i32) (local $c v128)
    (local.set $f (i32.add (local.get $i) (i32.shl (local.get $units) (i32.const 2))))
    (local.set $g (i32.add (local.get $f) (i32.shl (local.get $units) (i32.const 2))))
    (local.set $o (i32.add (local.get $g) (i32.shl (local.get $units) (i32.const 2))))
    (loop $unit
      (local.set $c (f32x4.add
        (f32x4.mul (call $sigmoid (v128.load (local.get $f))) (v128.load (local.get $cell)))
        (f32x4.mul (call $sigmoid (v128.load (local.get $i))) (call $tanh (v128.load (local.get $g))))))
      (v128.store (local.get $cell) (local.get $c))
      (v128.store (local.get $hidden)
        (f32x4.mul (call $sigmoid (v128.load (local.get $o))) (call $tanh (local.get $c))))
      (local.set $i (i32.add (local.get $i) (i32.const 16)))
      (local.set $f (i32.add (local.get $f) (i32.const 16)))
      (local.set $g (i32.add (local.get $g) (i32.const 16)))
      (local.set $o (i32.add (local.get $o) (i32.const 16)))
      (local.set $cell (i32.add (local.get $cell) (i32.const 16)))
      (local.set $hidden (i32.add (local.get $hidden) (i32.const 16)))
      (local.set $units (i32.sub (local.get $units) (i32.const 4)))
      (br_if $unit (local.get $units))))

  ;; n = tanh(a + sigmoid(r) d); h' = n + sigmoid(z) (h - n), with the sums of r, z, d one after another, where d is of
  ;; the hidden state and a, elsewhere, of the input.
  (func (export "gru") (param $r i32) (param $a i32) (param $hidden i32) (param $units i32)
    (local $z i32) (local $d i32) (local $n v128)
    (local.set $z (i32.add (local.get $r) (i32.shl (local.get $units) (i32.const 2))))
    (local.set $d (i32.add (local.get $z) (i32.shl (local.get $units) (i32.const 2))))
    (loop $unit
      (local.set $n (call $tanh (f32x4.add (v128.load (local.get $a))
        (f32x4.mul (call $sigmoid (v128.load (local.get $r))) (v128.load (local.get $d))))))
      (v128.store (local.get $hidden) (f32x4.add (local.get $n)
        (f32x4.mul (call $sigmoid (v128.load (local.get $z))) (f32x4.sub (v128.load (local.get $hidden)) (local.get $n)))))
      (local.set $r (i32.add (local.get $r) (i32.const 16)))
      (local.set $z (i32.add (local.get $z) (i32.const 16)))
      (local.set $d (i32.add (local.get $d) (i32.const 16)))
      (local.set $a (i32.add (local.get $a) (i32.const 16)))
      (local.set $hidden (i32.add (local.get $hidden) (i32.const 16)))
      (local.set $units (i32.sub (local.get $units) (i32.const 4)))
      (br_if $unit (local.get $units)))))
