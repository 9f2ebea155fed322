  // --- drawing: a pad, and networks that run here -------------------------------------------------

  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  /** A multilayer perceptron as Python packed it: int8 rows with a scale and a bias each, ReLUs between layers. */
  const networkOf = ({ sizes, weights, scale, bias }) => {
    const [w, s, b] = [new Int8Array(bytesOf(weights).buffer), ...[scale, bias].map((text) => new Float32Array(bytesOf(text).buffer))];
    const last = sizes.length - 1;
    return (numbers) => {
      let [x, at, row] = [numbers, 0, 0];
      for (let layer = 1; layer <= last; layer++) {
        const y = new Float32Array(sizes[layer]);
        for (let r = 0; r < y.length; r++, row++) {
          let sum = 0;
          for (let i = 0; i < x.length; i++) sum += w[at++] * x[i];
          sum = sum * s[row] + b[row];
          y[r] = layer < last ? Math.max(sum, 0) : sum;
        }
        x = y;
      }
      return x;
    };
  };

  /** Pixels in [0, 1], channel after channel, on a canvas of their size. */
  const paintPixels = (canvas, x, channels) => {
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    const count = canvas.width * canvas.height;
    for (let i = 0; i < count; i++) {
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = 255 * x[i + (channels > 1 ? c * count : 0)];
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  };

  /** Ink (size × size, in [0, 1]) as MNIST's makers prepared digits (LeCun et al., 1998): its longer side takes 20 of
      28 pixels, its centre of mass lies in the centre. Null where there is no ink. */
  const prepare = (ink, size, side) => {
    let [low, high, lowest, highest, mass, cx, cy] = [size, -1, size, -1, 0, 0, 0];
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        const value = ink[y * size + x];
        if (value < 0.1) continue;
        [low, high] = [Math.min(low, x), Math.max(high, x)];
        [lowest, highest] = [Math.min(lowest, y), Math.max(highest, y)];
        [mass, cx, cy] = [mass + value, cx + value * (x + 0.5), cy + value * (y + 0.5)];
      }
    }
    if (!mass) return null;
    const pixel = (Math.max(high - low, highest - lowest) + 1) / ((20 / 28) * side); // of the result, in the pad's
    const corner = (centre) => centre / mass - (side / 2) * pixel;
    const samples = 6;
    return Float32Array.from({ length: side * side }, (_, place) => {
      let sum = 0;
      for (let k = 0; k < samples * samples; k++) {
        const x = Math.floor(corner(cx) + ((place % side) + ((k % samples) + 0.5) / samples) * pixel);
        const y = Math.floor(corner(cy) + (Math.floor(place / side) + (Math.floor(k / samples) + 0.5) / samples) * pixel);
        if (x >= 0 && y >= 0 && x < size && y < size) sum += ink[y * size + x];
      }
      return sum / samples ** 2;
    });
  };

  const PAD = 280;

  /** Where the reader draws. `drawn` gets the prepared pixels after each stroke, and while one is drawn. */
  const padOf = (side, drawn) => {
    const canvas = make("canvas", { class: "pad", width: PAD, height: PAD, role: "img", "aria-label": "Pad to draw a digit on with the mouse or a finger" });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const clear = () => {
      context.fillStyle = "#000";
      context.fillRect(0, 0, PAD, PAD);
    };
    const read = () => {
      const { data } = context.getImageData(0, 0, PAD, PAD);
      const x = prepare(Float32Array.from({ length: PAD * PAD }, (_, i) => data[4 * i] / 255), PAD, side);
      if (x) drawn(x);
    };
    let [last, fresh, waiting] = [null, true, false];
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientX - box.left) / box.width) * PAD, ((event.clientY - box.top) / box.height) * PAD];
    };
    const line = (to) => {
      Object.assign(context, { strokeStyle: "#fff", lineWidth: 0.08 * PAD, lineCap: "round", lineJoin: "round" });
      context.beginPath();
      context.moveTo(...last);
      context.lineTo(...to);
      context.stroke();
      last = to;
      if (!waiting) requestAnimationFrame(() => ((waiting = false), read()));
      waiting = true;
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.preventDefault();
      if (fresh) clear(); // a test image that was shown makes room
      fresh = false;
      canvas.setPointerCapture(event.pointerId);
      line((last = at(event)));
    });
    canvas.addEventListener("pointermove", (event) => last && line(at(event)));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));
    const show = (image) => {
      fresh = true;
      context.imageSmoothingEnabled = false;
      context.drawImage(image, 0, 0, PAD, PAD);
    };
    clear();
    return { canvas, show, clear: () => (clear(), (fresh = false)) };
  };

  const drawing = (data, sprite, box, host) => {
    const [channels, height, width] = data.shape;
    const readout = make("p", { role: "status" });
    const help = make("p", { class: "help", id: "help" });
    const canDraw = channels === 1 && height === width;
    help.textContent =
      (canDraw ? "Draw" : "Take an image") + ", then drag the mark over a plane, or move it by the arrow keys.";
    const models = data.pairs.map((pair) => {
      const [encode, decode] = [networkOf(pair.encoder), networkOf(pair.decoder)];
      const answer = make("canvas", { class: "tile", width, height, "aria-hidden": "true" });
      const decoded = (z) => decode(z).map((logit) => 1 / (1 + Math.exp(-logit)));
      const model = { pair, encode: (x) => encode(x).slice(0, 2), decode: decoded };
      const chart = coordinates(
        { ...data, ...pair, axes: ["z₁", "z₂"], title: `${pair.name}: plane of codes` },
        () => {
          const z = chart.code();
          paintPixels(answer, decoded(z), channels);
          const text = `${pair.name}: z₁ = ${number(z[0], 2)}, z₂ = ${number(z[1], 2)}.`;
          const near = data.classes[chart.nearest()];
          readout.textContent = near ? `${text} Nearest test image: ${near}.` : text;
        },
      );
      model.show = (x) => chart.set(...model.encode(x));
      model.element = make(
        "section", { class: "model", "aria-label": pair.name },
        make("p", { class: "name" }, pair.name), chart.view.pane, make("div", { class: "answer" }, make("span", {}, "decoded"), answer),
      );
      return model;
    });
    const seen = make("canvas", { class: "tile", width, height, "aria-hidden": "true" });
    const take = (x) => {
      paintPixels(seen, x, channels);
      for (const model of models) model.show(x);
    };
    const pad = canDraw ? padOf(width, take) : null;
    const bytes = bytesOf(data.examples);
    const size = channels * height * width;
    const examples = Array.from({ length: bytes.length / size }, (_, i) =>
      Float32Array.from(bytes.subarray(i * size, (i + 1) * size), (byte) => byte / 255));
    const choose = (x) => {
      take(x);
      if (pad) pad.show(seen);
    };
    const buttons = examples.map((x, i) => {
      const small = make("canvas", { class: "tile", width, height, "aria-hidden": "true" });
      paintPixels(small, x, channels);
      const button = make("button", { type: "button", class: "example", "aria-label": `Test image ${i + 1}` }, small);
      button.addEventListener("click", () => choose(x));
      return button;
    });
    const left = make("div", { class: "left" });
    if (pad) {
      const clear = make("button", { type: "button", class: "clear" }, "Clear");
      clear.addEventListener("click", pad.clear);
      left.append(make("p", { class: "name" }, "Draw here"), pad.canvas, make("div", { class: "seen" }, clear, make("span", {}, "as the network sees it"), seen));
    } else left.append(seen);
    const examplesRow = make("div", { class: "examples" }, make("span", {}, "Or take:"), ...buttons);
    const legendOf = hasClasses(data) ? [legend(data)] : [];
    const panes = make("div", { class: `drawing of${models.length}` }, left, ...models.map((model) => model.element));
    if (models.length === 1) models[0].element.append(readout); // beside the plane there is room
    else panes.append(readout);
    box.append(panes, examplesRow, ...legendOf, help);
    choose(examples[Math.min(3, examples.length - 1)]);
    // For whoever wants to compute with what the page computes with, our tests among them.
    host.networks = Object.fromEntries(models.map((model) => [model.pair.name, model]));
    host.prepare = prepare;
  };
