;; Counts the records of each key in store 0 and emits the key with its count (8 bytes, little
;; endian) to output 0. A record without a key is emitted with 0; one with the key "!" is rejected.
;; At most 10,000 records a batch. A punctuation emits the time it was due for, without a key.
(import "sidestream:transform/state@0.1.0" "get" (func $get (param i32 i32 i32 i32)))
(import "sidestream:transform/state@0.1.0" "put" (func $put (param i32 i32 i32 i32 i32 i32)))

(func $count (param $batch i32) (result i32)
    (local $rows i32) (local $row i32) (local $key i32) (local $length i32) (local $value i32)
    (local.set $rows (i32.load offset=68 (local.get $batch)))
    (local.set $key (i32.load offset=56 (local.get $batch)))
    (block $end (loop $next
        (br_if $end (i32.eq (local.get $row) (local.get $rows)))
        (local.set $length (i32.load (i32.add
            (i32.load offset=64 (local.get $batch))
            (i32.shl (local.get $row) (i32.const 2)))))
        (local.set $value (i32.add (i32.const 0x70000) (i32.shl (local.get $row) (i32.const 3))))
        (i64.store (local.get $value) (i64.const 0))
        (if (i32.ge_s (local.get $length) (i32.const 0)) (then
            (if (i32.and
                    (i32.eq (local.get $length) (i32.const 1))
                    (i32.eq (i32.load8_u (local.get $key)) (i32.const 0x21)))
                (then (return (call $reject (local.get $row)))))
            (call $get (i32.const 0) (local.get $key) (local.get $length) (i32.const 512))
            (if (i32.load8_u (i32.const 512)) (then
                (i64.store (local.get $value) (i64.load (i32.load (i32.const 516))))))
            (i64.store (local.get $value) (i64.add (i64.load (local.get $value)) (i64.const 1)))
            (call $put (i32.const 0) (local.get $key) (local.get $length)
                (i32.const 1) (local.get $value) (i32.const 8))
            (local.set $key (i32.add (local.get $key) (local.get $length)))))
        (call $emit (local.get $row))
        (local.set $row (i32.add (local.get $row) (i32.const 1)))
        (br $next)))
    (call $answer (local.get $batch) (local.get $rows)))

;; The columns of an emitted record that don't come from the batch.
(func $emit (param $row i32)
    (local $at i32)
    (local.set $at (i32.shl (local.get $row) (i32.const 2)))
    (i32.store offset=0x10000 (local.get $at) (local.get $row))
    (i32.store offset=0x20000 (local.get $at) (i32.const 0))
    (i32.store offset=0x30000 (local.get $at) (i32.const -1))
    (i32.store offset=0x40000 (local.get $at) (i32.const 8))
    (i64.store offset=0x50000 (i32.shl (local.get $row) (i32.const 3))
        (i64.const 0x8000000000000000)))

(func $list (param $at i32) (param $data i32) (param $length i32)
    (i32.store (local.get $at) (local.get $data))
    (i32.store offset=4 (local.get $at) (local.get $length)))

;; Effects at 1024; the keys are those of the batch, where they are.
(func $answer (param $batch i32) (param $rows i32) (result i32)
    (call $columns
        (i32.load offset=56 (local.get $batch)) (i32.load offset=60 (local.get $batch))
        (i32.load offset=64 (local.get $batch)) (local.get $rows)))

(func $columns (param $keys i32) (param $bytes i32) (param $lengths i32) (param $rows i32)
        (result i32)
    (i32.store (i32.const 1024) (i32.const 0))
    (call $list (i32.const 1028) (i32.const 0x10000) (local.get $rows))
    (call $list (i32.const 1036) (i32.const 0x20000) (local.get $rows))
    (call $list (i32.const 1044) (local.get $keys) (local.get $bytes))
    (call $list (i32.const 1052) (local.get $lengths) (local.get $rows))
    (call $list (i32.const 1060) (i32.const 0x70000) (i32.shl (local.get $rows) (i32.const 3)))
    (call $list (i32.const 1068) (i32.const 0x40000) (local.get $rows))
    (i32.store (i32.const 1076) (i32.const 0))
    (call $list (i32.const 1120) (i32.const 0x50000) (local.get $rows))
    (call $list (i32.const 1128) (i32.const 0x30000) (local.get $rows))
    (memory.fill (i32.const 1136) (i32.const 0) (i32.const 40))
    (i32.const 1024))

;; One record without a cause and without a key.
(func $tick (param $time i64) (result i32)
    (call $emit (i32.const 0))
    (i32.store (i32.const 0x10000) (i32.const -1))
    (i64.store (i32.const 0x70000) (local.get $time))
    (i32.store (i32.const 700) (i32.const -1))
    (call $columns (i32.const 0) (i32.const 0) (i32.const 700) (i32.const 1)))

;; A failure at 600.
(func $reject (param $row i32) (result i32)
    (i32.store8 (i32.const 600) (i32.const 1))
    (i32.store8 (i32.const 604) (i32.const 1))
    (i32.store (i32.const 608) (local.get $row))
    (call $list (i32.const 612) (i32.const 640) (i32.const 6))
    (i64.store (i32.const 640) (i64.const 0x6e6f73696f70))
    (i32.const 600))
