// `cargo xtask bench engine`: measurements in the same browser as the tests; nothing here can fail on a number.
import tests from "./playwright.config.mjs";

export default { ...tests, testDir: "bench", timeout: 900_000, testMatch: "*.bench.mjs" };
