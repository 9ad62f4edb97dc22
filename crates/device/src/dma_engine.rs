//! The reference DMA engine; `docs/dma-engine.md` is its datasheet.

pub mod regs;
