/** The nearest IEEE 754 half-precision number as its 16 bits; ties to even, too large becomes infinite. */
export function toFloat16(value: number): number {
  // Rounding to single first would round twice, so the double itself is scaled to whole units of the half's last place.
  if (Number.isNaN(value)) return 0x7e00
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
  const size = Math.abs(value)
  if (size >= 65520) return sign | 0x7c00
  if (size < 2 ** -14) return sign | roundToEven(size * 2 ** 24)
  const exponent = exponentOf(size)
  // A mantissa that rounds up to 2048 carries into the exponent, which is just what the addition does.
  return sign | (((exponent + 14) << 10) + roundToEven(size * 2 ** (10 - exponent)))
}

/** The number that 16 bits of half precision stand for. */
export function fromFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const mantissa = bits & 1023
  if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  if (exponent === 0) return sign * mantissa * 2 ** -24
  return sign * (1024 + mantissa) * 2 ** (exponent - 25)
}

/** e with 2^e <= size < 2^(e + 1), for sizes from 2^-14 to below 2^16. */
function exponentOf(size: number): number {
  let exponent = -14
  while (size >= 2 ** (exponent + 1)) ++exponent
  return exponent
}

function roundToEven(value: number): number {
  const floor = Math.floor(value)
  const rest = value - floor
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor
}
