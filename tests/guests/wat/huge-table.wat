(module
  (memory (export "memory") 1)
  (table $t 4294967295 funcref)
  (func (export "_start") (drop (table.grow $t (ref.null func) (i32.const 1)))))
