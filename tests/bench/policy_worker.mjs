// One of the page's policy workers, started by itself.
export class PolicyWorker {
  constructor(url) {
    this.worker = new Worker(url);
  }

  /** The worker's next word. */
  reply() {
    return new Promise((resolve, reject) => {
      this.worker.onmessage = (message) => resolve(message.data);
      this.worker.onerror = (error) => reject(new Error(error.message ?? "the worker's script could not be loaded"));
    });
  }

  /** What it answers to a message. */
  ask(message) {
    const answer = this.reply();
    this.worker.postMessage(message);
    return answer;
  }

  end() {
    this.worker.terminate();
  }
}
