// Files that are dropped on the page go to the model's input, as if picked there; of a folder, those directly in it.
"use strict";
addEventListener("dragover", (event) => {
  // Else the browser opens the file in place of the page.
  if (event.dataTransfer.types.includes("Files")) event.preventDefault();
});
addEventListener("drop", async (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  // At once: after the first wait the list is empty.
  const items = [...event.dataTransfer.items].map((item) => [item.webkitGetAsEntry?.(), item.getAsFile()]);
  const input = document.getElementById("model-file");
  const files = new DataTransfer();
  for (const [entry, file] of items) {
    if (entry?.isDirectory) {
      input.dataset.folder = entry.name;
      const reader = entry.createReader();
      const next = () => new Promise((done, fail) => reader.readEntries(done, fail));
      // The list comes in parts.
      for (let part; (part = await next()).length; )
        for (const inner of part) if (inner.isFile) files.items.add(await new Promise((done, fail) => inner.file(done, fail)));
    } else if (file) files.items.add(file);
  }
  input.files = files.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
});
