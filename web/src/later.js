// Modules that the page does without at first.
"use strict";
(() => {
  const tries = {};
  window.tandemLater = async (name) => {
    const at = (file) => new URL(file, document.baseURI);
    // Under another address each time: a browser may remember for good that a script could not be had.
    const tried = (tries[name] = (tries[name] ?? -1) + 1);
    const module = await import(at(tried ? `${name}.js?try=${tried}` : `${name}.js`));
    await module.default({ module_or_path: at(`${name}_bg.wasm`) });
    return module;
  };
})();
