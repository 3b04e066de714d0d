// Modules that the page does without at first.
"use strict";
window.tandemLater = async (name) => {
  const at = (file) => new URL(file, document.baseURI);
  const module = await import(at(`${name}.js`));
  await module.default({ module_or_path: at(`${name}_bg.wasm`) });
  return module;
};
