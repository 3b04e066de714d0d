// Before the first paint: the colours that the link or an earlier visit asked for, so that nothing flashes.
"use strict";
(function () {
  const link = (location.search + "&" + location.hash).match(/[?#&]theme=(auto|light|dark)\b/);
  let theme = link && link[1];
  try {
    theme = theme || localStorage.getItem("tandem-theme");
  } catch {
    // Private windows may refuse; the system's colours it is.
  }
  if (/^(auto|light|dark)$/.test(theme || "")) document.documentElement.dataset.theme = theme;
})();
