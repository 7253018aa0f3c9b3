// Keys and values are bytes; JSON carries them as text or base64.

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export const encode = (text) => new TextEncoder().encode(text);

/** The text that the bytes are, or null. */
export function decode(bytes) {
  try {
    return utf8.decode(bytes);
  } catch {
    return null;
  }
}

export function fromJson(text, encoding) {
  return encoding === "base64" ? Uint8Array.from(atob(text), (c) => c.charCodeAt(0)) : encode(text);
}

/** As a path of `/v1/k/` has it: a browser would fold `.`, `..` and `//` in `/v1/kv/`. */
export function base64url(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""))
    .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export const percent = (bytes) => Array.from(bytes, (byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");

export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Hex in groups of 4 bytes, 16 a line, as it can be edited. */
export function hexLines(bytes) {
  const lines = [];
  for (let at = 0; at < bytes.length; at += 16) {
    lines.push(hex(bytes.subarray(at, at + 16)).replace(/(.{8})(?=.)/g, "$1 "));
  }
  return lines.join("\n");
}

/** Bytes of hex digits, with white space anywhere; null if it is something else. */
export function fromHex(text) {
  const digits = text.replace(/\s/g, "");
  if (digits.length % 2 || /[^0-9a-f]/i.test(digits)) return null;
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

export function same(one, other) {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}

export function startsWith(bytes, prefix) {
  return bytes.length >= prefix.length && prefix.every((byte, at) => byte === bytes[at]);
}
