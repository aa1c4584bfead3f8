//! Training: the recipe of TinyGPT-V and of BLIP-2's first stage, and the drawn scenes that
//! tinyfind's own small model learns from.
