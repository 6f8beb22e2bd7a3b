/**
 * The seed of the property tests: the same one for everybody, so that a test run is the same run on every machine.
 *
 * `FC_SEED=7 npm test` looks elsewhere, `FC_SEED=random npm test` somewhere new; a failure prints the seed it had.
 */
import fc from "fast-check";

const { FC_SEED = "1" } = process.env;
if (FC_SEED !== "random") fc.configureGlobal({ seed: Number(FC_SEED) });
