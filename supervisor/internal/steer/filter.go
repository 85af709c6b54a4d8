package steer

import (
	"golang.org/x/net/bpf"

	"gpm/supervisor/internal/aim"
)

// netOff is SKF_NET_OFF of linux/filter.h: offsets from the IP header.
const netOff = 0xfff00000

// nobody is an index beyond any group: the kernel then takes its own hash.
const nobody = 1 << 30

// maxIndex bounds the aims of classic programs.
const maxIndex = 256

// part is the share of one index in a classic program.
type part struct{ index, weight int }

// filter is the classic program of a group. Connections that are aimed at an index
// go there whatever the parts say. Nothing to share means the kernel's hash: a
// classic program cannot refuse.
func filter(p Policy, parts []part) []bpf.Instruction {
	total := 0
	for _, x := range parts {
		total += x.weight
	}
	prog := aimed()
	switch {
	case total == 0:
		return append(prog, bpf.RetConstant{Val: nobody})
	case p == Hash:
		prog = append(prog, flow()...)
	default:
		prog = append(prog, bpf.LoadExtension{Num: bpf.ExtRand})
	}
	prog = append(prog, bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(total)})
	below := 0
	for _, x := range parts {
		below += x.weight
		prog = append(prog, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: uint32(below), SkipTrue: 1},
			bpf.RetConstant{Val: uint32(x.index)})
	}
	return append(prog, bpf.RetConstant{Val: nobody}) // unreachable
}

// aimed obeys the mark of package aim: a source address; or class and flow
// label, of connections from an address to itself.
func aimed() []bpf.Instruction {
	const over = 0xff // to be replaced: to the end
	prog := []bpf.Instruction{
		bpf.LoadAbsolute{Off: netOff, Size: 1}, // IP version
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 4, SkipFalse: 5},
		bpf.LoadAbsolute{Off: netOff + 12, Size: 4}, // source address
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xffffff00},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: aim.SourceNet << 16, SkipFalse: over},
		bpf.LoadAbsolute{Off: netOff + 15, Size: 1},
		bpf.RetA{},
		bpf.LoadAbsolute{Off: netOff, Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: aim.HeadMask},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: aim.Head, SkipFalse: over},
	}
	for word := uint32(0); word < 16; word += 4 {
		prog = append(prog,
			bpf.LoadAbsolute{Off: netOff + 8 + word, Size: 4}, // source
			bpf.TAX{},
			bpf.LoadAbsolute{Off: netOff + 24 + word, Size: 4}, // destination
			bpf.JumpIfX{Cond: bpf.JumpEqual, SkipFalse: over})
	}
	prog = append(prog,
		bpf.LoadAbsolute{Off: netOff, Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^uint32(aim.HeadMask)},
		bpf.RetA{})
	for i := range prog {
		rest := uint8(len(prog) - i - 1)
		switch j := prog[i].(type) {
		case bpf.JumpIf:
			if j.SkipFalse == over {
				j.SkipFalse = rest
				prog[i] = j
			}
		case bpf.JumpIfX:
			j.SkipFalse = rest
			prog[i] = j
		}
	}
	return prog
}

// flow hashes source address and ports. SKF_AD_RXHASH would be shorter, but is 0
// on the loopback device.
func flow() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: netOff, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 4, SkipFalse: 4},
		bpf.LoadAbsolute{Off: netOff + 12, Size: 4},
		bpf.StoreScratch{Src: bpf.RegA, N: 0},
		bpf.LoadAbsolute{Off: netOff + 20, Size: 4}, // ports of TCP
		bpf.Jump{Skip: 3},
		bpf.LoadAbsolute{Off: netOff + 20, Size: 4}, // IPv6: the last word of the source
		bpf.StoreScratch{Src: bpf.RegA, N: 0},
		bpf.LoadAbsolute{Off: netOff + 40, Size: 4},
		bpf.LoadScratch{Dst: bpf.RegX, N: 0},
		bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: 0x9e3779b1},
		bpf.ALUOpX{Op: bpf.ALUOpXor},
		bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: 0x85ebca6b},
		bpf.TAX{},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 15},
		bpf.ALUOpX{Op: bpf.ALUOpXor},
	}
}
