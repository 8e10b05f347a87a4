//! Checks what Sidestream did, without any of its code.
