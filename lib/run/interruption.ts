/**
 * Ctrl-C and SIGTERM, politely: the first one asks the run to finish its step and write a checkpoint, the second one
 * ends the process at once.
 */
export class Interruption {
  private received: NodeJS.Signals | undefined
  private readonly listener = (signal: NodeJS.Signals) => this.receive(signal)

  /** Listens from now on; `onRequest` is told about the first signal. */
  constructor(private readonly onRequest: (signal: NodeJS.Signals) => void) {
    for (const signal of signals) process.on(signal, this.listener)
  }

  /** Whether the run is asked to end. */
  get requested(): boolean {
    return this.received !== undefined
  }

  /** The exit status that tells a shell which signal ended the run; 0 where none did. */
  get exitStatus(): number {
    return this.received === undefined ? 0 : statusOf(this.received)
  }

  /** Stops listening. */
  dispose(): void {
    for (const signal of signals) process.off(signal, this.listener)
  }

  private receive(signal: NodeJS.Signals): void {
    if (this.received !== undefined) process.exit(statusOf(signal))
    this.received = signal
    this.onRequest(signal)
  }
}

const signals: NodeJS.Signals[] = ['SIGINT', 'SIGTERM']

/** The shell's convention: 128 and the signal's number. */
function statusOf(signal: NodeJS.Signals): number {
  return signal === 'SIGINT' ? 130 : 143
}
