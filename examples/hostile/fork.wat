;; WASI has no way to start a process; WASIX adds one. A component that asks for it is refused before anything of it runs.
(module
  (import "wasix_32v1" "proc_fork" (func $fork (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $fork (i32.const 0) (i32.const 0)))))
