package hls

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
)

// maxKeys are the keys that are remembered.
const maxKeys = 64

// keys fetches keys, each once.
type keys struct {
	client *Client
	known  map[string][]byte
	order  []string
}

// decrypt undoes METHOD=AES-128 (RFC 8216 4.3.2.4, 5.2): CBC with PKCS7
// padding, each resource or range on its own. number is the media sequence
// number, the initialization vector where the key has none.
func (k *keys) decrypt(ctx context.Context, key *Key, number uint64, b []byte) ([]byte, error) {
	if key == nil {
		return b, nil
	}
	secret, err := k.fetch(ctx, key)
	if err != nil {
		return nil, err
	}
	iv := key.IV
	if iv == nil {
		iv = binary.BigEndian.AppendUint64(make([]byte, 8, keySize), number)
	}
	out, err := decryptCBC(secret, iv, b)
	if err != nil {
		// The key may have been changed under its address.
		k.forget(key)
	}
	return out, err
}

func (k *keys) fetch(ctx context.Context, key *Key) ([]byte, error) {
	name := key.URL.String()
	if b, ok := k.known[name]; ok {
		return b, nil
	}
	f, err := k.client.get(ctx, key.URL, nil, 4<<10, playlistTimeout, nil)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if len(f.body) != keySize {
		return nil, fmt.Errorf("key %s has %d bytes, want %d", Show(key.URL), len(f.body), keySize)
	}
	if len(k.order) == maxKeys {
		delete(k.known, k.order[0])
		k.order = append(k.order[:0], k.order[1:]...)
	}
	if k.known == nil {
		k.known = map[string][]byte{}
	}
	k.known[name], k.order = f.body, append(k.order, name)
	return f.body, nil
}

func (k *keys) forget(key *Key) {
	name := key.URL.String()
	delete(k.known, name)
	for i, x := range k.order {
		if x == name {
			k.order = append(k.order[:i], k.order[i+1:]...)
			return
		}
	}
}

// name tells one media initialization section from others.
func (i *Init) name() string {
	name := i.URL.String()
	if i.Range != nil {
		name += fmt.Sprintf(" %d@%d", i.Range.Length, i.Range.Offset)
	}
	if i.Key != nil {
		name += fmt.Sprintf(" %s %x", i.Key.URL, i.Key.IV)
	}
	return name
}

// decryptCBC decrypts b in place.
func decryptCBC(key, iv, b []byte) ([]byte, error) {
	if len(b) == 0 || len(b)%aes.BlockSize != 0 {
		return nil, fmt.Errorf("%d bytes cannot be AES-128 in CBC: want a multiple of %d", len(b), aes.BlockSize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(b, b)
	n := int(b[len(b)-1])
	if n == 0 || n > aes.BlockSize {
		return nil, errors.New("the padding is wrong after decryption: the key does not fit")
	}
	for _, x := range b[len(b)-n:] {
		if int(x) != n {
			return nil, errors.New("the padding is wrong after decryption: the key does not fit")
		}
	}
	return b[:len(b)-n], nil
}
