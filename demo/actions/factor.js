// Takes a number apart by trying one divisor after the other: for a prime of sixteen digits that takes many seconds.

function main ({ number }) {
  const whole = BigInt(number)
  console.log(`looking for a factor of ${whole}`)
  for (let divisor = 2n; divisor * divisor <= whole; divisor++) {
    if (whole % divisor === 0n) return { factors: [divisor.toString(), (whole / divisor).toString()] }
  }
  return { factors: [whole.toString()] }
}
