import { Command } from 'commander'
import { parameterCount } from '../algorithm/meter.js'
import { type Measurement, measureGrpoStep, measureRollouts, measureTraining } from '../bench/measure.js'
import { shapeNamed, shapes } from '../bench/shapes.js'
import { Engine } from '../engine/engine.js'
import { nativeBinding } from '../engine/native-binding.js'
import { addModelOptions, engineFlags, findModel, type ModelFlags, positiveNumber } from './model-options.js'
import { printResult, textTable } from './print.js'
import { UsageError } from './usage-error.js'

interface BenchFlags extends ModelFlags {
  shape?: string
  seconds: number
  json?: boolean
}

export function benchCommand(): Command {
  return addModelOptions(new Command('bench'))
    .description('measure how fast this machine trains and samples')
    .argument('[model]', 'folder of a model, a checkpoint or a run')
    .option('--shape <name>', `random weights in the shape of ${Object.keys(shapes).join(', ')} (default: qwen3-12m)`)
    .option('--seconds <number>', 'how long each kind of work is repeated', positiveNumber, 3)
    .option('--json', 'print the result as JSON')
    .addHelpText(
      'after',
      `
On the CPU, figures are also given as a share of the speed of one large matrix product, measured in the same run.
The default dtype is bfloat16, which is what large models are trained in. The model itself is not changed.

Examples:
  foretoken bench
  foretoken bench ./model --dtype float32
  foretoken bench --shape smollm2-135m --json`,
    )
    .action(async (model: string | undefined, { seconds, json, shape, ...flags }: BenchFlags) => {
      if (model !== undefined && shape !== undefined) throw new UsageError('give a model or a --shape, not both')
      const options = { ...engineFlags(flags), dtype: flags.dtype ?? 'bfloat16' }
      const name = model ?? shape ?? 'qwen3-12m'
      await using engine =
        model === undefined
          ? await Engine.create(shapeNamed(name), options)
          : await Engine.open(await findModel(model), options)
      const productSpeed = () =>
        engine.device === 'cpu' ? nativeBinding().productSpeed(options.dtype, options.threads ?? 0) : 0
      const before = productSpeed()
      const measurements: Measurement[] = []
      for (const measure of [measureTraining, measureRollouts, measureGrpoStep]) {
        measurements.push(await measure({ engine, seconds }))
      }
      // The faster of two: other programs may have been busy during one of them.
      const ceiling = Math.max(before, productSpeed())
      const result = {
        model: name,
        parameters: parameterCount(engine),
        device: engine.device,
        deviceDescription: engine.deviceDescription,
        dtype: engine.dtype,
        ceilingFlops: ceiling || null,
        measurements: measurements.map((each) => ({ ...each, share: ceiling ? each.flops / ceiling : null })),
      }
      printResult(json, result, () => benchText(result))
    })
}

interface BenchResult {
  model: string
  parameters: number
  deviceDescription: string
  ceilingFlops: number | null
  measurements: (Measurement & { share: number | null })[]
}

function benchText({ model, parameters, deviceDescription, ceilingFlops, measurements }: BenchResult): string {
  const rows = measurements.map(({ name, seconds, tokensPerSecond, share }) => [
    name,
    `${seconds.toPrecision(3)} s`,
    `${tokensPerSecond.toFixed(0)} tokens/s`,
    share === null ? '' : `${(100 * share).toFixed(1)} %`,
  ])
  const ceiling = ceilingFlops === null ? '' : `; a large product: ${(ceilingFlops / 1e9).toFixed(0)} GFLOP/s`
  return [
    `${model}: ${(parameters / 1e6).toFixed(1)}M parameters on ${deviceDescription}${ceiling}`,
    '',
    textTable([['', 'time', 'rate', ceilingFlops === null ? '' : 'of the product'], ...rows]),
    '',
    ...measurements.map(({ name, work }) => `${name}: ${work}`),
  ].join('\n')
}
