// `cargo xtask record`: makes the run that the page plays before a model is loaded, from a real one.
import tests from "./playwright.config.mjs";

export default { ...tests, testDir: "record", testMatch: "*.record.mjs" };
