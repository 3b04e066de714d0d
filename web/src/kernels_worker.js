// A helper of the CPU kernels: runs the module over the memory that it is given, takes pieces of work, and sleeps when
// there are none. It is ended by whoever started it.
"use strict";
self.onmessage = ({ data: [module, memory, stack] }) => {
  const imports = { env: { memory }, tandem: { wake() {}, now: () => 0 } };
  const { exports } = new WebAssembly.Instance(module, imports);
  exports.__stack_pointer.value = stack;
  const signal = exports.signal() >>> 2;
  for (;;) {
    const seen = exports.help();
    Atomics.wait(new Int32Array(memory.buffer), signal, seen);
    exports.unpark();
  }
};
