(module (memory (export "memory") 1) (func $trap unreachable) (start $trap) (func (export "_start")))
