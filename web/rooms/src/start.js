// Before anything else of a room's page: its connection, whose handshakes take as long as the module does. And where the page
// cannot run, it says so: without WebAssembly's SIMD instructions, with which it is compiled, or when something of it does not
// arrive.
"use strict";
(function () {
  // One function with i8x16.splat and i8x16.popcnt: valid only where SIMD is.
  const simd = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
  const say = (words) =>
    addEventListener("DOMContentLoaded", () => {
      const text = document.getElementById("shell-text");
      if (text) text.textContent = words;
    });
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(new Uint8Array(simd)))
    return say("This browser runs no WebAssembly with SIMD, which this page needs. Open the address in a current Chrome, Firefox or Safari.");
  addEventListener("unhandledrejection", () => {
    const text = document.getElementById("shell-text");
    if (text)
      text.textContent =
        "The page did not start. Reload it; if that does not help, join the network of the hall again and scan the code once more.";
  });
  // As a QR code has it; what is typed goes another way. `link.rs` takes the connection over, and opens one where there is none.
  const code = location.hash.slice(1).split("/")[0];
  if (/^[A-Z0-9]{6}$/.test(code))
    window.tandemSocket = new WebSocket(new URL(`ws/rooms/${code}`, document.baseURI).href.replace("http", "ws"));
})();
