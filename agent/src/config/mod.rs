//! The pipeline file and the environment, read into one validated value.
