// The page for people who see little, see no colours, or do not see: axe-core's rules for WCAG 2.2 A and AA.
import AxeBuilder from "@axe-core/playwright";
import { ask, done, expect, open, test } from "./harness.mjs";

for (const scheme of ["light", "dark"]) {
  for (const width of [1280, 390]) {
    test(`no accessibility violations: ${scheme}, ${width} px`, async ({ page, edge }) => {
      await page.setViewportSize({ width, height: 900 });
      await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
      await open(page, edge.url, "?seed=3");
      await page.getByTestId("mode").selectOption("server-only");
      await ask(page, "What is the capital of Kenya?");
      await done(page);
      const found = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]).analyze();
      const told = found.violations.map((rule) => `${rule.id}: ${rule.help}\n  ${rule.nodes.map((node) => node.target.join(" ")).join("\n  ")}`);
      expect(told, "violations").toEqual([]);
      expect(found.passes.length, "rules that applied").toBeGreaterThan(15);
    });
  }
}
