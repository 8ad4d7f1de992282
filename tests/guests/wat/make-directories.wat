;; Makes the directories 0000 to 0399 beneath its second preopened directory, computing a little before each.
;; Ends with 1 at the first that can't be made, as one that was made already can't.
(module
  (import "wasi_snapshot_preview1" "path_create_directory"
    (func $make (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func $digit (param $at i32) (param $value i32)
    (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $value) (i32.const 10)))))
  (func (export "_start")
    (local $number i32) (local $turns i32)
    (loop $next
      (local.set $turns (i32.const 300000))
      (loop $turn (br_if $turn (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
      (call $digit (i32.const 0) (i32.div_u (local.get $number) (i32.const 1000)))
      (call $digit (i32.const 1) (i32.div_u (local.get $number) (i32.const 100)))
      (call $digit (i32.const 2) (i32.div_u (local.get $number) (i32.const 10)))
      (call $digit (i32.const 3) (local.get $number))
      (if (call $make (i32.const 4) (i32.const 0) (i32.const 4)) (then (call $exit (i32.const 1))))
      (local.set $number (i32.add (local.get $number) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $number) (i32.const 400))))))
