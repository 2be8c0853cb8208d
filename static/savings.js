// The threshold control while it moves: counts from the table that came with the page, nothing is asked of the server.
(() => {
  "use strict";
  const say = (n) => n.toLocaleString("en");
  document.addEventListener("input", ({ target }) => {
    const card = target.closest("#threshold");
    if (!card || !["slide", "t"].includes(target.id)) return;
    const slide = card.querySelector("#slide");
    const typed = card.querySelector("#t");
    if (target === slide) typed.value = slide.value;
    else {
      const text = typed.value.trim().replace(",", ".");
      const value = parseFloat(text) / (text.endsWith("%") ? 100 : 1);
      if (!(value >= 0 && value <= 1)) return;
      slide.value = value;
    }
    card.querySelector("[name=was]").value = slide.value; // from here on both fields say the same, and the number counts
    const accepted = Number(card.dataset.accepted.split(" ")[Math.round(slide.value * 100)]);
    const items = Number(card.dataset.items);
    const words = `${say(accepted)} of ${say(items)} accepted, ${say(items - accepted)} by hand`;
    card.querySelector("#sliding").textContent = words;
    slide.setAttribute("aria-valuetext", `${slide.value}: ${words}`);
  });
})();
