package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // SHA256 of the schemes below
	_ "crypto/sha512" // SHA384 and SHA512 of the schemes below
	"io"
	"maps"
	"math/big"
	"slices"
)

// scheme reports whether the signature over signed is of the holder of public.
// It is false for a key of another kind than the scheme's own.
type scheme func(public crypto.PublicKey, signed string, signature []byte) bool

// schemes are the algorithms that can be allowed (RFC 7518 section 3.1, RFC 8037
// section 3.1). Verifying with any of them takes a public key only, so a
// published key can never serve as a shared secret; there is no HMAC and no "none".
var schemes = map[string]scheme{
	"RS256": pkcs1v15(crypto.SHA256), "RS384": pkcs1v15(crypto.SHA384), "RS512": pkcs1v15(crypto.SHA512),
	"PS256": pss(crypto.SHA256), "PS384": pss(crypto.SHA384), "PS512": pss(crypto.SHA512),
	"ES256": ecdsaOn(elliptic.P256(), crypto.SHA256),
	"ES384": ecdsaOn(elliptic.P384(), crypto.SHA384),
	"ES512": ecdsaOn(elliptic.P521(), crypto.SHA512),
	"EdDSA": eddsa,
}

// Algorithms returns the signature algorithms that an issuer can be allowed, sorted.
func Algorithms() []string { return slices.Sorted(maps.Keys(schemes)) }

func pkcs1v15(hash crypto.Hash) scheme {
	return func(public crypto.PublicKey, signed string, signature []byte) bool {
		key, ok := public.(*rsa.PublicKey)
		return ok && rsa.VerifyPKCS1v15(key, hash, digest(hash, signed), signature) == nil
	}
}

func pss(hash crypto.Hash) scheme {
	options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash} // RFC 7518 section 3.5
	return func(public crypto.PublicKey, signed string, signature []byte) bool {
		key, ok := public.(*rsa.PublicKey)
		return ok && rsa.VerifyPSS(key, hash, digest(hash, signed), signature, options) == nil
	}
}

// ecdsaOn verifies the concatenation of r and s (RFC 7518 section 3.4).
func ecdsaOn(curve elliptic.Curve, hash crypto.Hash) scheme {
	size := (curve.Params().BitSize + 7) / 8
	return func(public crypto.PublicKey, signed string, signature []byte) bool {
		key, ok := public.(*ecdsa.PublicKey)
		if !ok || key.Curve != curve || len(signature) != 2*size {
			return false
		}
		r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
		return ecdsa.Verify(key, digest(hash, signed), r, s)
	}
}

func eddsa(public crypto.PublicKey, signed string, signature []byte) bool {
	key, ok := public.(ed25519.PublicKey)
	return ok && len(key) == ed25519.PublicKeySize && ed25519.Verify(key, []byte(signed), signature)
}

// digest hashes the text in pieces: a copy of it would be the largest cost of
// refusing a token.
func digest(hash crypto.Hash, text string) []byte {
	h := hash.New()
	writePieces(h, text)
	return h.Sum(nil)
}

func writePieces(h io.Writer, text string) {
	var piece [256]byte
	for text != "" {
		n := copy(piece[:], text)
		_, _ = h.Write(piece[:n]) // a hash never fails
		text = text[n:]
	}
}
