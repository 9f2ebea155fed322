// What the pages' generator leaves out: for readers without a mouse or a screen, and for those with a small one.
(() => {
  const all = (selector) => document.querySelectorAll(selector);

  // What scrolls sideways in a narrow window can be reached, and scrolled, from the keyboard; what does not, not.
  const mark = () => {
    for (const element of all("article .pst-scrollable-table-container, article div.math, article pre")) {
      if (element.scrollWidth > element.clientWidth + 1) element.tabIndex = 0;
      else element.removeAttribute("tabindex");
    }
    // A formula in a line: what a screen reader is told lies beside it unseen, and counts as its width.
    for (const formula of all("article mjx-container:not([display=true])")) {
      const ink = formula.querySelector("mjx-math");
      const wide = Boolean(ink) && ink.getBoundingClientRect().width > formula.clientWidth + 1;
      formula.classList.toggle("wide", wide);
      if (wide) formula.tabIndex = 0;
      else formula.removeAttribute("tabindex");
    }
  };
  for (const moment of ["load", "resize"]) window.addEventListener(moment, mark);
  window.addEventListener("load", () => window.MathJax?.startup?.promise?.then(mark));

  // The bibliography is called a list, but anchors stand among its entries.
  const mendLists = () => {
    for (const list of all("div.citation-list[role=list]")) list.setAttribute("role", "group");
  };

  // Figures enlarge: a click, or Enter, opens one in a window of its own, and Escape closes it.
  const enlarge = (image) => {
    const dialog = document.createElement("dialog");
    const sheet = document.createElement("div");
    const close = document.createElement("button");
    const copy = image.cloneNode();
    dialog.className = "enlarged";
    dialog.setAttribute("aria-label", "Enlarged figure");
    sheet.className = "sheet";
    sheet.tabIndex = 0;
    close.type = "button";
    close.textContent = "Close";
    for (const name of ["tabindex", "role", "aria-label", "title", "id"]) copy.removeAttribute(name);
    sheet.append(copy);
    dialog.append(sheet, close);
    for (const target of [close, copy]) target.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      image.focus({ preventScroll: true });
    });
    image.closest("article").append(dialog);
    dialog.showModal();
    close.focus();
  };
  const mendFigures = () => {
    if (!window.HTMLDialogElement) return;
    for (const image of all("article figure > img")) {
      image.classList.add("enlarges");
      image.tabIndex = 0;
      image.setAttribute("role", "button");
      image.setAttribute("aria-label", `Enlarge. ${image.alt}`);
      image.addEventListener("click", () => enlarge(image));
      image.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        enlarge(image);
      });
    }
  };

  // Figures have a picture for the dark; paper is never dark.
  const night = all.bind(null, "article img[data-night]");
  const light = new WeakMap();
  const dress = (dark) => {
    for (const image of night()) {
      if (!light.has(image)) light.set(image, image.src);
      const wanted = dark ? image.dataset.night : light.get(image);
      if (image.getAttribute("src") !== wanted) image.src = wanted;
    }
  };
  const isDark = () => document.documentElement.dataset.theme === "dark";
  window.addEventListener("beforeprint", () => dress(false));
  window.addEventListener("afterprint", () => dress(isDark()));

  window.addEventListener("DOMContentLoaded", () => {
    dress(isDark());
    new MutationObserver(() => dress(isDark())).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    mendLists();
    mendFigures();
  });
})();
