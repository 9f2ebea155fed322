// Brings the explorers of a page to life. Python has written, for each, a host with a still image in it and,
// after it, its data as JSON; see lib/report/embed.py. Runs once per explorer, finds those not done yet.
(() => {
  "use strict";
  const LOOKS = __LOOKS__;

  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const number = (value, digits) => value.toFixed(digits).replace("-", "−");
  const plain = (value) => String(value).replace("-", "−");
  const colored = (element, color) => (element.style.setProperty("--color", color), element);

  // --- light and dark -----------------------------------------------------------------------------

  /** As the page says, or JupyterLab; a page that says nothing is light. */
  const isDark = () => {
    const { theme } = document.documentElement.dataset;
    const { jpThemeLight } = document.body.dataset;
    return theme ? theme === "dark" : jpThemeLight === "false";
  };
  const onTheme = (change) => {
    const watch = new MutationObserver(change);
    watch.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    watch.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  };

  // --- images -------------------------------------------------------------------------------------

  const load = async (source) => {
    const image = new Image();
    image.src = source;
    await image.decode();
    return image;
  };

  /** A canvas of one image's own size; the page enlarges it without blurring pixels. */
  const tile = (data) => make("canvas", { class: "tile", width: data.width, height: data.height, "aria-hidden": "true" });

  const draw = (context, data, sprite, index, alpha = 1) => {
    const { width, height, columns } = data;
    context.globalAlpha = alpha;
    context.drawImage(
      sprite,
      (index % columns) * width, Math.floor(index / columns) * height, width, height,
      0, 0, width, height,
    );
    context.globalAlpha = 1;
  };

  // --- a plane with dots, for drawing and scatter  ---------------------------------------------------

  /** A canvas as wide as its place, redrawn sharply at every size: `paint` its ground, `mark` what moves. */
  const map = (kind, label, describedBy, ratio, margin, paint, mark) => {
    const canvas = make("canvas", { tabindex: "0", role: "application", "aria-label": label, "aria-describedby": describedBy });
    const ground = document.createElement("canvas");
    const pane = make("div", { class: `map ${kind}` }, canvas);
    const view = { canvas, pane, width: 0, height: 0, left: margin.left, top: margin.top };
    view.redraw = () => {
      if (!view.width) return;
      const context = canvas.getContext("2d");
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.drawImage(ground, 0, 0);
      context.scale(view.scale, view.scale);
      mark(context, view);
    };
    const resize = () => {
      const full = Math.floor(pane.clientWidth);
      const scale = window.devicePixelRatio || 1;
      const dark = isDark();
      if (!full || (full === view.full && scale === view.scale && dark === view.dark)) return;
      Object.assign(view, { full, scale, dark, width: full - margin.left - margin.right });
      view.height = Math.round(view.width / ratio);
      const tall = view.height + margin.top + margin.bottom;
      for (const target of [canvas, ground]) {
        target.width = Math.round(full * scale);
        target.height = Math.round(tall * scale);
      }
      canvas.style.height = `${tall}px`;
      const context = ground.getContext("2d");
      context.scale(scale, scale);
      const looks = getComputedStyle(pane);
      for (const name of ["ground", "ink", "grid"]) view[name] = looks.getPropertyValue(`--${name}`).trim();
      context.fillStyle = view.ground;
      context.fillRect(0, 0, full, tall);
      context.font = `${looks.fontSize} ${looks.fontFamily}`;
      paint(context, view);
      view.redraw();
    };
    /** Where a pointer is, as shares of the plane's width and height from its upper left corner. */
    view.share = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left - view.left) / view.width, (event.clientY - box.top - view.top) / view.height];
    };
    new ResizeObserver(resize).observe(pane);
    onTheme(() => requestAnimationFrame(resize)); // once the box has its new colours
    return view;
  };

  const place = (data, view, i) => [
    view.left + (data.x[i] / 1000) * view.width,
    view.top + (data.y[i] / 1000) * view.height,
  ];

  const disc = (context, x, y, radius) => {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
  };

  const paintDots = (context, data, view) => {
    const radius = clamp(60 / Math.sqrt(data.x.length), 2, 4);
    context.globalAlpha = view.dark ? 0.85 : 0.65; // the palette is darker than a dark ground asks for
    for (let i = 0; i < data.x.length; i++) {
      context.fillStyle = data.colors[data.labels[i]];
      disc(context, ...place(data, view, i), radius);
      context.fill();
    }
    context.globalAlpha = 1;
  };

  const paintFrame = (context, view) => {
    context.strokeStyle = "#8c8c8c";
    context.lineWidth = 1;
    context.strokeRect(view.left + 0.5, view.top + 0.5, view.width - 1, view.height - 1);
  };

  /** White under dark, so that it shows on every ground. */
  const outline = (context, trace) => {
    for (const [style, width] of [["#fff", 4.5], ["#1a1a1a", 2]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      trace();
      context.stroke();
    }
  };

  const closest = (data, x, y, width = 1, height = 1) => {
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < data.x.length; i++) {
      const distance = Math.hypot((data.x[i] / 1000 - x) * width, (data.y[i] / 1000 - y) * height);
      if (distance < least) [best, least] = [i, distance];
    }
    return [best, least];
  };

  const legend = (data) =>
    make(
      "ul",
      { class: "legend", "aria-label": "Classes" },
      ...data.classes.map((name, i) => make("li", {}, colored(make("span", { class: "swatch" }), data.colors[i]), name)),
    );

  const hasClasses = (data) => data.classes && data.classes.some((name) => name);

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  /** Arrow keys are ours: neither the page nor a notebook editor may scroll or change cells by them. */
  const onArrow = (element, move) =>
    element.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in ARROWS || event.key === "Home")) return;
      event.preventDefault();
      event.stopPropagation();
      move(ARROWS[event.key], event.shiftKey);
    });

  // --- a plane of codes with a mark to move -------------------------------------------------------

  /** Axes, dots and a mark that answers to mouse, touch and keys; `moved` is called when it was. */
  const coordinates = (data, moved) => {
    const [left, right, bottom, top] = data.extent;
    const at = [0.5, 0.5];
    const step = Math.pow(10, Math.floor(Math.log10((right - left) / 3)));
    const ticks = (low, high) => {
      const every = [1, 2, 5, 10].map((factor) => factor * step).find((width) => (high - low) / width <= 7);
      const list = [];
      for (let k = Math.ceil(low / every - 1e-9); k * every <= high + 1e-9 * every; k++) list.push(k * every);
      return list.map((value) => [value, number(value, every < 1 ? Math.ceil(-Math.log10(every)) : 0)]);
    };
    const paint = (context, view) => {
      context.fillStyle = view.ink;
      context.strokeStyle = view.grid;
      context.textAlign = "center";
      context.textBaseline = "top";
      for (const [value, text] of ticks(left, right)) {
        const x = Math.round(view.left + ((value - left) / (right - left)) * view.width) + 0.5;
        context.strokeRect(x, view.top, 0, view.height);
        context.fillText(text, x, view.top + view.height + 5);
      }
      context.textAlign = "right";
      context.textBaseline = "middle";
      for (const [value, text] of ticks(bottom, top)) {
        const y = Math.round(view.top + ((top - value) / (top - bottom)) * view.height) + 0.5;
        context.strokeRect(view.left, y, view.width, 0);
        context.fillText(text, view.left - 6, y);
      }
      context.textAlign = "center";
      context.textBaseline = "bottom";
      context.fillText(data.axes[0], view.left + view.width / 2, view.top + view.height + 44);
      context.save();
      context.translate(2, view.top + view.height / 2);
      context.rotate(-Math.PI / 2);
      context.textBaseline = "top";
      context.fillText(data.axes[1], 0, 0);
      context.restore();
      if (data.x) paintDots(context, data, view);
      paintFrame(context, view);
    };
    const mark = (context, view) => {
      const [x, y] = at.map((share, axis) => clamp(share, 0, 1) * [view.width, view.height][axis] + [view.left, view.top][axis]);
      outline(context, () => {
        disc(context, x, y, 8);
        for (const [dx, dy] of Object.values(ARROWS)) {
          context.moveTo(x + 8 * dx, y + 8 * dy);
          context.lineTo(x + 15 * dx, y + 15 * dy);
        }
      });
    };
    const view = map(
      "drag", `${data.title}. Arrow keys move the marked place.`, "help",
      (right - left) / (top - bottom), { left: 50, right: 10, top: 8, bottom: 46 }, paint, mark,
    );

    const nearest = () => data.labels[closest(data, ...at, right - left, top - bottom)[0]];
    const go = (x, y) => {
      [at[0], at[1]] = [x, y];
      moved();
      view.redraw();
    };
    const inside = (x, y) => go(clamp(x, 0, 1), clamp(y, 0, 1));
    let held = false;
    view.canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      held = true;
      view.canvas.setPointerCapture(event.pointerId);
      inside(...view.share(event));
    });
    view.canvas.addEventListener("pointermove", (event) => held && inside(...view.share(event)));
    for (const end of ["pointerup", "pointercancel"]) view.canvas.addEventListener(end, () => (held = false));
    onArrow(view.canvas, (way, far) => {
      const size = (far ? 5 : 1) / 60;
      way ? inside(at[0] + size * way[0], at[1] + size * way[1]) : inside(0.5, 0.5);
    });
    const code = () => [left + at[0] * (right - left), top - at[1] * (top - bottom)];
    const set = (z1, z2) => go((z1 - left) / (right - left), (top - z2) / (top - bottom));
    return { view, at, code, nearest, inside, set };
  };

  // --- strips: a slider per direction -------------------------------------------------------------

  const strips = (data, sprite, box) => {
    const list = make("div", { class: "strips" });
    data.names.forEach((name, row) => {
      const image = tile(data);
      const value = make("span", { class: "value", "aria-hidden": "true" });
      const input = make("input", {
        id: `strip-${row}`, type: "range", min: "0", max: String(data.columns - 1), step: "1", value: String(data.start),
      });
      const show = () => {
        const step = Number(input.value);
        draw(image.getContext("2d"), data, sprite, row * data.columns + step);
        let text = `${plain(data.positions[step])} ${data.unit}`.trim();
        if (data.numbers) text += `, ${data.number_name} ${plain(data.numbers[row][step])}`;
        value.textContent = text;
        input.setAttribute("aria-valuetext", text);
      };
      input.addEventListener("input", show);
      // The browser moves the slider; nobody else shall hear of it.
      input.addEventListener("keydown", (event) => event.key in ARROWS && event.stopPropagation());
      list.append(make("div", { class: "strip" }, image, make("div", {}, make("label", { for: input.id }, name), input, value)));
      show();
    });
    box.append(list, make("p", { class: "help" }, "Move a slider, or focus it and use the arrow keys."));
  };

  // --- scatter: an image and its neighbours for every dot -----------------------------------------

  const scatter = (data, sprite, box) => {
    const name = (i) => data.classes[data.labels[i]];
    let chosen = 0; // stays when the pointer leaves
    let shown = 0;
    const image = tile(data);
    const readout = make("p", { role: "status" });
    const near = make("ol", { class: "near" });
    const help = make(
      "p", { class: "help", id: "help" },
      "Point at a dot and click to keep it, tap it, or focus the map and use the arrow keys." +
        (data.neighbours ? " Rings mark its neighbours; click one to go there." : ""),
    );
    const title = (i) => `${data.noun[0].toUpperCase()}${data.noun.slice(1)} ${i + 1}${name(i) ? `: ${name(i)}` : ""}`;
    const neighbours = () => (data.neighbours ? data.neighbours[shown] : []);

    const mark = (context, view) => {
      const [x, y] = place(data, view, shown);
      for (const i of neighbours()) {
        const [a, b] = place(data, view, i);
        outline(context, () => disc(context, a, b, 6));
      }
      outline(context, () => disc(context, x, y, 10));
      context.fillStyle = data.colors[data.labels[shown]];
      disc(context, x, y, 5);
      context.fill();
    };
    const paint = (context, view) => paintDots(context, data, view);
    const view = map("tap", `${data.title}. Arrow keys go to the next dot.`, "help", 1, { left: 12, right: 12, top: 12, bottom: 12 }, paint, mark);

    const show = (i) => {
      shown = i;
      draw(image.getContext("2d"), data, sprite, i);
      let text = `${title(i)}.`;
      if (data.neighbours && hasClasses(data)) {
        const same = neighbours().filter((j) => name(j) === name(i)).length;
        text += ` Of the ${neighbours().length} ${data.near}, ${same} ${same === 1 ? "is" : "are"} of its class.`;
      }
      readout.textContent = text;
      near.replaceChildren(
        ...neighbours().map((j) => {
          const small = tile(data);
          draw(small.getContext("2d"), data, sprite, j);
          const button = colored(make("button", { type: "button", "aria-label": `Go to ${title(j)}` }, small), data.colors[data.labels[j]]);
          if (name(j)) button.append(make("span", {}, name(j)));
          button.addEventListener("click", () => {
            choose(j);
            view.canvas.focus();
          });
          return make("li", {}, button);
        }),
      );
      view.redraw();
    };
    const choose = (i) => show((chosen = i));
    const under = (event) => closest(data, ...view.share(event), view.width, view.height);
    view.canvas.addEventListener("pointerdown", (event) => event.button || choose(under(event)[0]));
    view.canvas.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch") return;
      const [i, distance] = under(event);
      if (i !== shown && distance < 20) show(i);
    });
    view.canvas.addEventListener("pointerleave", () => shown !== chosen && show(chosen));
    onArrow(view.canvas, (way) => {
      if (!way) return choose(0);
      // The nearest dot within 45° of the arrow's direction; one that is off to the side counts as farther.
      let best = -1;
      let least = Infinity;
      for (let i = 0; i < data.x.length; i++) {
        const [dx, dy] = [data.x[i] - data.x[chosen], data.y[i] - data.y[chosen]];
        const along = dx * way[0] + dy * way[1];
        const aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
        if (i !== chosen && along > 0 && aside <= along && along + aside < least) [best, least] = [i, along + aside];
      }
      if (best >= 0) choose(best);
    });

    const side = make("div", { class: "side" }, image, readout);
    if (hasClasses(data)) side.append(legend(data));
    box.append(make("div", { class: "panes" }, view.pane, side));
    if (data.neighbours) box.append(near);
    box.append(help);
    show(chosen);
  };

  // --- draws: estimates that settle as samples come -----------------------------------------------

  const draws = (data, sprite, box) => {
    const last = data.counts.length - 1;
    const all = data.rises.flat();
    const [low, high] = [Math.min(0, ...all), Math.max(0, ...all)];
    const left = (value) => `${(100 * (value - low)) / (high - low || 1)}%`;
    const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
    const items = data.bounds.map((bound, i) => {
      const image = tile(data);
      draw(image.getContext("2d"), data, sprite, i);
      const marks = ["bound", "goal", "dot"].map((name) => make("i", { class: name }));
      marks[0].style.left = left(0);
      marks[1].style.left = left(data.rises[last][i]);
      const value = make("span", { class: "value" });
      return { image, dot: marks[2], value, item: make("li", {}, image, make("div", { class: "track", "aria-hidden": "true" }, ...marks), value) };
    });
    const readout = make("p", { role: "status" });
    const slider = make("input", { type: "range", min: "0", max: String(last), step: "1", value: "0", "aria-label": "Number of samples" });
    const more = make("button", { type: "button", class: "more" }, "Draw more samples");
    const show = () => {
      const at = Number(slider.value);
      const count = data.counts[at].toLocaleString("en");
      items.forEach(({ dot, value }, i) => {
        dot.style.left = left(data.rises[at][i]);
        value.textContent = `${number(data.bounds[i] + data.rises[at][i], 1)}, ${number(100 * data.shares[at][i], 0)}%`;
      });
      const rise = average(data.rises[at]);
      readout.textContent =
        `${count} ${data.counts[at] === 1 ? "sample" : "samples"} per image. On average the estimate is ${number(Math.abs(rise), 2)} ${data.unit} ` +
        `${rise < 0 ? "below" : "above"} the ${data.names[0]}, and the largest weight has ${number(100 * average(data.shares[at]), 0)}% of the sum.`;
      slider.setAttribute("aria-valuetext", `${count} samples`);
      more.disabled = at === last;
    };
    slider.addEventListener("input", show);
    // The browser moves the slider; nobody else is to hear of it.
    slider.addEventListener("keydown", (event) => event.key in ARROWS && event.stopPropagation());
    more.addEventListener("click", () => {
      slider.value = String(Number(slider.value) + 1);
      show();
    });
    box.append(
      make("div", { class: "controls" }, more, slider),
      readout,
      make("ul", { class: "draws" }, ...items.map(({ item }) => item)),
      make("p", { class: "help" }, `Line: ${data.names[0]}. Triangle: ${data.names[1]}. Dot: the estimate, whose value stands below with the largest weight’s share.`),
    );
    show();
  };

  // --- player: frames to play, pause and scrub ----------------------------------------------------

  const framesOf = async (data) => {
    const frames = await Promise.all(data.frames.map(load));
    const picture = make("canvas", { class: "tile film", width: data.width, height: data.height, "aria-hidden": "true" });
    picture.style.maxWidth = `${data.width / data.density}px`;
    return { screen: picture, picture, paint: (frame) => picture.getContext("2d").drawImage(frames[frame], 0, 0) };
  };

  /** Rows of images, their labels beside them as text. */
  const rowsOf = (data, sprite) => {
    const [gap, lines] = [2, data.rows.length];
    const [right, down] = [data.width + gap, data.height + gap];
    const picture = make("canvas", {
      class: "tile walk", width: data.columns * right - gap, height: lines * down - gap, "aria-hidden": "true",
    });
    picture.style.maxWidth = `${6 * picture.width}px`;
    const context = picture.getContext("2d");
    const paint = (frame) => {
      for (let i = 0; i < lines * data.columns; i++) {
        const [column, line] = [i % data.columns, Math.floor(i / data.columns)];
        context.setTransform(1, 0, 0, 1, column * right, line * down);
        draw(context, data, sprite, frame * lines * data.columns + i);
      }
    };
    const labels = make("div", { class: "labels" }, ...data.rows.map((row) => make("span", {}, row)));
    return { screen: make("div", { class: "rows" }, labels, picture), picture, paint };
  };

  const player = async (data, sprite, box, host) => {
    const { screen, picture, paint } = await (data.rows ? rowsOf : framesOf)(data, sprite);
    const last = data.labels.length - 1;
    const button = make("button", { type: "button", class: "play" });
    const slider = make("input", { type: "range", min: "0", max: String(last), step: "1", "aria-label": data.title });
    const value = make("span", { class: "value", "aria-hidden": "true" });
    let [at, way, timer, onceOnly] = [data.start, 1, 0, false];

    const show = (frame) => {
      at = clamp(frame, 0, last);
      paint(at);
      slider.value = String(at);
      slider.setAttribute("aria-valuetext", data.labels[at]);
      value.textContent = data.labels[at];
    };
    const name = () => {
      button.textContent = timer ? "Pause" : "Play";
      button.classList.toggle("playing", Boolean(timer));
    };
    const pause = () => {
      clearTimeout(timer);
      timer = 0;
      name();
    };
    const turned = () => (at === 0 && way < 0) || (at === last && (way > 0 || !data.back));
    const advance = () => {
      if (turned() && onceOnly && (at === 0 || !data.back)) return pause();
      if (turned() && data.back) way = -way;
      show(turned() ? 0 : at + way);
      wait();
    };
    const wait = () => (timer = setTimeout(advance, 1000 * (data.step + (at === 0 || at === last ? data.hold : 0))));
    const play = (once) => {
      onceOnly = once;
      if (once) [way] = [1, show(0)];
      wait();
      name();
    };

    // What a reader does ends what the player began by itself.
    const watch = new IntersectionObserver(([entry]) => {
      if (!entry.isIntersecting) pause();
      else if (!timer) play(true);
    }, { threshold: 0.6 });
    const taken = () => watch.disconnect();
    const toggle = () => (taken(), timer ? pause() : play(false));
    const step = (frame) => (taken(), pause(), show(frame));
    button.addEventListener("click", toggle);
    picture.addEventListener("click", toggle);
    slider.addEventListener("input", () => step(Number(slider.value)));
    box.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const space = event.key === " ";
      if (!space && !(event.key in ARROWS || event.key === "Home" || event.key === "End")) return;
      event.stopPropagation(); // a notebook editor would change cells
      if (event.target === button ? space : !space && event.target === slider) return; // the browser does it
      event.preventDefault();
      if (space) return event.repeat || toggle();
      step({ Home: 0, End: last }[event.key] ?? at + Math.sign(ARROWS[event.key][0] - ARROWS[event.key][1]));
    });
    slider.addEventListener("focus", taken);
    box.append(screen, make("div", { class: "controls" }, button, slider, value));
    show(data.start);
    name();
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) watch.observe(host);
    addEventListener("beforeprint", pause);
  };

  // --- switches: recorded points on a circle ------------------------------------------------------

  const switches = (data, sprite, box, host) => {
    const last = data.moments.length - 1;
    const recordings = data.points.map((text) => Int8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
    let [at, timer] = [last, 0];
    const boxes = data.switches.map((name, i) => make("input", { type: "checkbox", id: `switch-${i}`, checked: "" }));
    /** States run from all on to all off, the last switch fastest. */
    const shown = () => data.states[boxes.reduce((sum, input) => 2 * sum + (input.checked ? 0 : 1), 0)];
    const readout = make("p", { role: "status" });
    const button = make("button", { type: "button", class: "play" });
    const slider = make("input", { type: "range", min: "0", max: String(last), step: "1", "aria-label": "Moment of training" });
    const value = make("span", { class: "value", "aria-hidden": "true" });

    const paint = (context, view) => {
      context.strokeStyle = "#8c8c8c";
      disc(context, view.left + view.width / 2, view.top + view.height / 2, view.width / 2);
      context.stroke();
    };
    const mark = (context, view) => {
      const count = data.labels.length;
      const flat = recordings[shown()];
      // Between two moments the points move in straight lines.
      const moment = Math.floor(at);
      const share = at - moment;
      const number = (i, axis) => {
        const now = flat[2 * (moment * count + i) + axis];
        return share ? (1 - share) * now + share * flat[2 * ((moment + 1) * count + i) + axis] : now;
      };
      context.globalAlpha = view.dark ? 0.85 : 0.65;
      for (let i = 0; i < count; i++) {
        context.fillStyle = data.colors[data.labels[i]];
        disc(context, view.left + (1 + number(i, 0) / 127) * view.width / 2, view.top + (1 - number(i, 1) / 127) * view.height / 2, 4);
        context.fill();
      }
      context.globalAlpha = 1;
    };
    const view = map("still", data.title, "help", 1, { left: 8, right: 8, top: 8, bottom: 8 }, paint, mark);
    view.canvas.removeAttribute("tabindex");
    view.canvas.setAttribute("role", "img");

    const show = (moment) => {
      at = clamp(moment, 0, last);
      const whole = Math.round(at);
      slider.value = String(whole);
      value.textContent = data.moments[whole];
      slider.setAttribute("aria-valuetext", data.moments[whole]);
      const numbers = Object.entries(data.numbers[shown()]).map(([name, values]) => `${name} ${plain(values[whole])}`);
      readout.textContent = `At ${data.moments[whole]}: ${numbers.join(", ")}.`;
      view.redraw();
    };
    const name = () => {
      button.textContent = timer ? "Pause" : "Play";
      button.classList.toggle("playing", Boolean(timer));
    };
    const pause = () => {
      cancelAnimationFrame(timer);
      timer = 0;
      name();
    };
    const play = () => {
      if (at === last) show(0);
      let before = 0;
      const advance = (now) => {
        show(at + (before ? ((now - before) / 5000) * last : 0));
        before = now;
        if (at === last) return pause();
        timer = requestAnimationFrame(advance);
      };
      timer = requestAnimationFrame(advance);
      name();
    };
    button.addEventListener("click", () => (timer ? pause() : play()));
    slider.addEventListener("input", () => (pause(), show(Number(slider.value))));
    slider.addEventListener("keydown", (event) => event.key in ARROWS && event.stopPropagation());
    for (const input of boxes) input.addEventListener("change", () => show(at));
    const list = make("div", { class: "switches" }, ...boxes.map((input, i) => make("label", { for: input.id }, input, data.switches[i])));
    const side = make("div", { class: "side" }, list, readout, legend(data));
    box.append(
      make("div", { class: "panes" }, view.pane, side),
      make("div", { class: "controls" }, button, slider, value),
      make("p", { class: "help", id: "help" }, "Switch parts off and play the recorded training."),
    );
    show(last);
    name();
    addEventListener("beforeprint", pause);
  };

  // --- mixer: two photographs, their mixture, and what networks make of it ------------------------

  const mixer = (data, sprite, box) => {
    const count = data.photos.length;
    const half = data.weights.indexOf(0.5);
    let chosen = [...data.start]; // the one chosen last is last
    let asked = false;
    const picks = make("div", { class: "picks", role: "group", "aria-label": "Choose two photographs" });
    const buttons = data.photos.map((name, i) => {
      const small = tile(data);
      draw(small.getContext("2d"), data, sprite, i);
      const button = make("button", { type: "button", "aria-label": `${name}, photograph ${i + 1}` }, small);
      button.addEventListener("click", () => {
        if (chosen.includes(i)) return;
        chosen = [chosen[1], i];
        asked = false;
        show();
      });
      picks.append(button);
      return button;
    });
    const mixture = tile(data);
    const slider = make("input", { type: "range", min: "0", max: String(data.weights.length - 1), step: "1", id: "weight" });
    slider.value = String(half);
    const weight = make("span", { class: "value", "aria-hidden": "true" });
    const ask = make("button", { type: "button", class: "ask" }, "Unmix");
    const told = make("p", { role: "status" });
    const answers = data.networks.map((name) => {
      const tiles = [tile(data), tile(data)];
      const line = make("div", { class: "answer" }, make("span", {}, name), ...tiles);
      return { tiles, line };
    });
    const bench = make(
      "div", { class: "bench" },
      make("div", { class: "mixed" }, mixture, make("label", { for: "weight" }, "Weight of the first photograph"), slider, weight, ask),
      make("div", { class: "answers" }, ...answers.map(({ line }) => line)),
    );

    const show = () => {
      const [i, j] = [...chosen].sort((a, b) => a - b);
      const pair = i * count - (i * (i + 1)) / 2 + j - i - 1;
      const pairs = (count * (count - 1)) / 2;
      const k = Number(slider.value);
      const w = data.weights[k];
      buttons.forEach((button, n) => button.setAttribute("aria-pressed", String(chosen.includes(n))));
      const context = mixture.getContext("2d", { willReadFrequently: true });
      draw(context, data, sprite, j);
      draw(context, data, sprite, i, w);
      const mixed = context.getImageData(0, 0, data.width, data.height);
      weight.textContent = number(w, 2);
      slider.setAttribute("aria-valuetext", `${number(w, 2)} ${data.photos[i]}, ${number(1 - w, 2)} ${data.photos[j]}`);
      answers.forEach(({ tiles, line }, n) => {
        line.hidden = !asked;
        const first = tiles[0].getContext("2d", { willReadFrequently: true });
        draw(first, data, sprite, count + (n * pairs + pair) * data.weights.length + k);
        const answer = first.getImageData(0, 0, data.width, data.height);
        // Both answers average to the mixture.
        for (let p = 0; p < answer.data.length; p++) if (p % 4 < 3) answer.data[p] = 2 * mixed.data[p] - answer.data[p];
        tiles[1].getContext("2d").putImageData(answer, 0, 0);
      });
      ask.disabled = asked;
      const what = `${data.photos[i]} and ${data.photos[j]}`;
      const gains = data.networks.map((name, n) => `${name} ${data.gains[n][pair] < 0 ? "" : "+"}${number(data.gains[n][pair], 1)} dB`);
      told.textContent = !asked
        ? `A mixture of ${what}.`
        : k === half
          ? `${what[0].toUpperCase()}${what.slice(1)}: PSNR against answering the average twice: ${gains.join(", ")}.`
          : "The networks were trained at a weight of one half only.";
    };
    ask.addEventListener("click", () => {
      asked = true;
      show();
    });
    slider.addEventListener("input", show);
    slider.addEventListener("keydown", (event) => event.key in ARROWS && event.stopPropagation());
    const help = make("p", { class: "help" }, "Choose two photographs, press Unmix, and move the slider.");
    box.append(picks, bench, told, help);
    show();
  };

  __DRAWING__

  // --- start --------------------------------------------------------------------------------------

  const KINDS = { strips, scatter, draws, switches, player, mixer, drawing };

  const start = async (host) => {
    const mark = host.dataset.explorer;
    const source = document.querySelector(`script[data-explorer-data="${mark}"]`);
    const data = JSON.parse(source.textContent);
    const sprite = await load(data.sprite || host.querySelector("img").src);
    const box = make("div", { class: "box", role: "group", "aria-label": data.title });
    await KINDS[data.kind](data, sprite, box, host);
    const light = () => box.classList.toggle("dark", isDark());
    light();
    onTheme(light);
    // From here on the host shows its shadow; the still image comes back through the slot, on paper.
    host.attachShadow({ mode: "open" }).append(make("style", {}, LOOKS), box, make("slot"));
  };

  for (const host of document.querySelectorAll("div.lwl-explorer:not([data-ready])")) {
    host.dataset.ready = "";
    start(host).catch((error) => console.error("The explorer stays a still image:", error));
  }
})();
