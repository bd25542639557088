module example.org/omellium/omemo/internal/wycheproof

go 1.26.6

require (
	example.org/omellium v0.0.0
	github.com/c2sp/wycheproof v0.0.0-20260902155932-3fa63dd0344a
)

require filippo.io/edwards25519 v1.2.0 // indirect

replace example.org/omellium => ../../..
