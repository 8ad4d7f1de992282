"""What a component may ask of its host: the imports of wit/airssys-core.wit, an interface a module."""
