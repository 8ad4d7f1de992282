(module
  (memory (export "memory") i64 1)
  (func (export "_start")
    (if (i64.ne (memory.grow (i64.const 1048576)) (i64.const -1)) (then unreachable))))
