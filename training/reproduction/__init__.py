"""The paper's tables, figures and claims, beside what was measured here."""
