/** Reads images from a file, a drop or the clipboard. */

import { ServiceError } from "./api.js";

const SIDE = 128;

/** An image file as {name, data}, data being a data URI of the unchanged bytes. */
export function read(file) {
  return new Promise((resolve, reject) => {
    if (!file.size) throw new ServiceError(`The file ${file.name} is empty.`);
    const reader = new FileReader();
    reader.onload = () => resolve({ name: file.name || "pasted image", data: reader.result });
    reader.onerror = () => reject(new ServiceError(`The file ${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}

/** The files of a drop or paste. */
const filesOf = (transfer) => [...(transfer?.files || [])];

/** A small square WebP of an image, its middle, to be stored beside the pair; null if the browser cannot draw it. */
export async function thumbnail(data) {
  const image = new Image();
  image.src = data;
  try {
    await image.decode();
  } catch {
    return null;
  }
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const pen = canvas.getContext("2d");
  const [width, height] = [image.naturalWidth || SIDE, image.naturalHeight || SIDE];
  const side = Math.min(width, height);
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, SIDE, SIDE);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, (width - side) / 2, (height - side) / 2, side, side, 0, 0, SIDE, SIDE);
  return canvas.toDataURL("image/webp", 0.85);
}

/** Accept images that are dropped or pasted anywhere; `take` gets the first file and the number of the others. */
export function accept(veil, take) {
  let depth = 0; // dragenter and dragleave come for each element on the way
  const show = (shown) => { veil.hidden = !shown; };
  const files = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  addEventListener("dragenter", (event) => { if (files(event)) { depth += 1; show(true); } });
  addEventListener("dragleave", (event) => { if (files(event)) { depth = Math.max(0, depth - 1); show(depth > 0); } });
  addEventListener("dragover", (event) => { if (files(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    depth = 0;
    show(false);
    const [file, ...others] = filesOf(event.dataTransfer);
    if (file) take(file, others.length);
  });
  addEventListener("paste", (event) => {
    const [file, ...others] = filesOf(event.clipboardData);
    const written = event.target.matches?.("input") && event.clipboardData?.types.includes("text/plain"); // cells of a table come as a picture, too
    if (file && !written) { event.preventDefault(); take(file, others.length); }
  });
}
