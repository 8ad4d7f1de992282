(module (memory (export "memory") 16384) (func (export "_start") (i32.store8 (i32.const 1073741823) (i32.const 1))))
