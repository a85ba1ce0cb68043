/*-------------------------------------------------------------------------
 *
 * tls.hpp
 *		Encryption under a connection: plain bytes on one side, cipher bytes on
 *		the other.
 *
 * OpenSSL over buffers of memory.  Knows no socket, so waiting stays in one
 * place: whoever owns the socket sends what outgoing() holds, feeds what
 * arrives to received(), and waits to write exactly while outgoing() is not
 * empty.
 *
 * The other end is verified, chain and name.  What cannot be verified is
 * refused with the reason; there is no way to go on without.
 *
 *-------------------------------------------------------------------------
 */
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace cache_ext::redis {

struct TlsSettings
{
	std::string host;             /* whom the certificate must name: a name or a number */
	std::string ca_file;          /* whom we trust; empty: the system's authorities */
	std::string certificate_file; /* ours, with its chain; empty: none */
	std::string key;              /* its private key: text in PEM form */
	bool verify_host = true;      /* false: the chain alone is verified */
};

/* Throws Error: 08001 up to the end of the handshake, 08006 after it. */
class Tls
{
  public:
	explicit Tls(const TlsSettings &settings);
	~Tls();
	Tls(const Tls &) = delete;
	Tls &operator=(const Tls &) = delete;

	/* Go on with the handshake as far as the bytes received allow; true when it is complete. */
	bool shake_hands();

	/* Encrypt some of the bytes; returns how many, 0 while too much waits to be sent. */
	size_t write(std::string_view plain);

	/* Decrypt into the buffer; 0: more has to arrive first. */
	size_t read(char *buffer, size_t size);

	/* Has the other end said that nothing will follow? */
	bool closed() const { return closed_; }

	std::string_view outgoing() const;
	void sent(size_t count);
	void received(std::string_view cipher);

  private:
	struct Parts;

	void collect();

	std::unique_ptr<Parts> parts_;
	std::string outgoing_;
	size_t sent_ = 0;
	bool closed_ = false;
};

} /* namespace cache_ext::redis */
